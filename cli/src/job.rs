//! `haystack job`: long work that callers of the API asked for.

use crate::{Globals, connect, table::Table};
use anyhow::Context;
use clap::Subcommand;
use domain::job::{Job, State};
use nats::{
    Wire,
    records::{self, Kept},
};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Jobs that a list shows.
const LISTED: usize = 50;

#[derive(Subcommand)]
pub(crate) enum JobCommand {
    /// List jobs, the newest first; they are kept for a week
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one job, with all that it told
    Show {
        /// Its number
        id: u32,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Stop one; what it did so far stays
    Stop {
        /// Its number
        id: u32,
    },
}

pub(crate) async fn run(command: JobCommand, globals: &Globals) -> anyhow::Result<ExitCode> {
    let config = globals.load()?.config;
    let wire = connect::by_hand(&config).await?;
    match command {
        JobCommand::List { json } => list(&wire, json).await?,
        JobCommand::Show { id, json } => {
            let found: Option<Kept<Job>> = records::get(&wire, id).await?;
            let none = || format!("there is no job {id}; `haystack job list` names them");
            let job = found.with_context(none)?.record;
            if json {
                println!("{}", serde_json::to_string_pretty(&shown(&job))?);
            } else {
                show(&job)?;
            }
        }
        JobCommand::Stop { id } => {
            let job: Job = records::change(&wire, id, Job::stop).await?;
            println!("job {id} ({}) is stopped: {}", job.what.name(), job.progress);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn state(job: &Job) -> String {
    match &job.state {
        State::Running if job.owner.is_none() => "waits for an ingest service".to_owned(),
        State::Running => "running".to_owned(),
        State::Stopped => "stopped".to_owned(),
        State::Done(_) => "done".to_owned(),
        State::Failed(why) => format!("failed: {why}"),
    }
}

async fn list(wire: &Wire, as_json: bool) -> anyhow::Result<()> {
    let mut jobs = Vec::new();
    for id in (1..=records::newest::<Job>(wire).await?).rev().take(LISTED) {
        jobs.extend(records::get::<Job>(wire, id).await?.map(|kept| kept.record));
    }
    if as_json {
        let all: Vec<Value> = jobs.iter().map(shown).collect();
        println!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(());
    }
    if jobs.is_empty() {
        println!("no jobs");
        return Ok(());
    }
    let mut table = Table::new(["job", "what", "org", "state", "progress", "by", "began"]);
    for job in &jobs {
        table.row([
            job.id.to_string(),
            job.what.name().to_owned(),
            job.what.org().map_or_else(|| "all".to_owned(), ToString::to_string),
            state(job),
            job.progress.clone(),
            job.by.clone(),
            job.began_at.to_string(),
        ]);
    }
    table.print();
    Ok(())
}

fn told(job: &Job) -> Option<Value> {
    let State::Done(text) = &job.state else { return None };
    serde_json::from_str(text).ok()
}

fn show(job: &Job) -> anyhow::Result<()> {
    let line = |name: &str, value: String| println!("{name:10} {value}");
    line("job", job.id.to_string());
    line("what", job.what.name().to_owned());
    line("org", job.what.org().map_or_else(|| "all".to_owned(), ToString::to_string));
    line("state", state(job));
    line("progress", job.progress.clone());
    line("by", format!("{}, {}", job.by, job.began_at));
    if let Some(told) = told(job) {
        println!("{}", serde_json::to_string_pretty(&told)?);
    }
    Ok(())
}

fn shown(job: &Job) -> Value {
    json!({
        "job_id": job.id,
        "what": job.what.name(),
        "org": job.what.org(),
        "state": state(job),
        "progress": job.progress,
        "by": job.by,
        "began_at": job.began_at.to_string(),
        "touched_at": job.touched_at.to_string(),
        "result": told(job),
    })
}
