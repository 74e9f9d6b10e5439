//! `haystack config`: every setting and where it came from.

use crate::{Globals, table::Table};
use clap::Args;
use service::config;
use std::process::ExitCode;

#[derive(Args)]
pub(crate) struct ConfigArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &ConfigArgs, globals: &Globals) -> anyhow::Result<ExitCode> {
    let shown = config::show(&globals.load()?);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&shown)?);
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(["setting", "value", "from"]);
    for setting in shown {
        table.row([setting.key, setting.value, setting.source]);
    }
    table.print();
    Ok(ExitCode::SUCCESS)
}
