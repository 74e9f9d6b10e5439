//! The `haystack` command: one binary, one subcommand a role.

mod connect;
mod crl;
mod databases;
mod dead_letters;
mod demo;
mod device;
mod device_type;
mod doctor;
mod gaps;
mod healthy;
mod job;
mod key;
mod ledger;
mod live;
mod migrate;
mod org;
mod pki;
mod replay;
mod roles;
mod settings;
mod simulator;
mod status;
mod table;
mod targets;
mod token;
mod trace;
mod transactions;
mod up;
mod user;
mod verify;

use clap::{Args, Parser, Subcommand};
use service::config::{self, Loaded};
use std::{path::PathBuf, process::ExitCode};

/// Telemetry of buildings and device fleets: nothing lost between "acknowledged" and "stored".
#[derive(Parser)]
#[command(name = "haystack", version = VERSION, max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// A build for tests says so.
const VERSION: &str = if cfg!(feature = "failpoints") {
    concat!(env!("CARGO_PKG_VERSION"), " with failpoints, for tests only")
} else {
    env!("CARGO_PKG_VERSION")
};

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage.";

/// What every subcommand takes.
#[derive(Args)]
pub(crate) struct Globals {
    /// Configuration file [default: ./haystack.toml, else the one that `up` wrote]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of everything that `up` runs
    #[arg(long, global = true, value_name = "DIR", default_value = ".haystack")]
    data_dir: PathBuf,
    /// Override one setting, e.g. --set log.level=debug
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl Globals {
    /// The configuration as the layers give it.
    pub(crate) fn load(&self) -> anyhow::Result<Loaded> {
        Ok(config::load(self.config.as_deref(), &self.data_dir, &self.set)?)
    }
}

#[derive(Subcommand)]
enum Command {
    /// Start everything on this machine, and show what flows
    Up(up::UpArgs),
    /// Stop what `up --detach` started
    Down(up::DownArgs),
    /// Print the addresses of what `up` runs, as KEY=value
    Env(up::EnvArgs),
    /// Streams, consumers, lag of each target, dead letters, and what is held and why
    Status(status::StatusArgs),
    /// Check versions, settings, clocks, disk and permissions, and say what to do
    Doctor(doctor::DoctorArgs),
    /// Gateways' reports whose parts are still coming, and what is missing
    Transactions(transactions::TransactionsArgs),
    /// What could not be processed: look at it, try it again, give it up
    #[command(subcommand)]
    DeadLetters(dead_letters::LettersCommand),
    /// Process history again by today's rules, or take that back
    Replay(replay::ReplayArgs),
    /// Long work that callers of the API asked for: how far it is, what it told
    #[command(subcommand)]
    Job(job::JobCommand),
    /// Exit 0 if a service that runs here answers, for health checks
    Healthy(healthy::HealthyArgs),
    /// Compare the targets: the same rows in each, by org and hour?
    Verify(verify::VerifyArgs),
    /// Where one reading is, and how it got there: from the message to its row in every target
    Trace(trace::TraceArgs),
    /// Is everything that was accepted stored, set aside or on its way? By hop, org and hour
    Ledger(ledger::LedgerArgs),
    /// Readings that are missing: of which point, since when, and where they stopped
    Gaps(gaps::GapsArgs),
    /// Databases that receive everything: how far each is; let one go, take one back
    #[command(subcommand)]
    Targets(targets::TargetsCommand),
    /// Print the merged configuration and where each value came from
    Config(settings::ConfigArgs),
    /// Bring the streams and every database to this release
    Migrate(migrate::MigrateArgs),
    /// Organisations
    #[command(subcommand)]
    Org(org::OrgCommand),
    /// Device types: how payloads become readings
    #[command(subcommand)]
    DeviceType(device_type::TypeCommand),
    /// Devices
    #[command(subcommand)]
    Device(device::DeviceCommand),
    /// Keys: which programs and devices may use the API
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Print a token of our service account at an issuer (auth.account)
    Token(token::TokenArgs),
    /// Users: which people may use the API, and for what
    #[command(subcommand)]
    User(user::UserCommand),
    /// Certificates: who may speak as which device
    Pki(pki::PkiArgs),
    /// Keep a few devices talking through the broker
    Demo(demo::DemoArgs),
    /// Run the bridge: MQTT to the streams
    Bridge(roles::BridgeArgs),
    /// Run the ingest service: the streams to every database
    Ingest,
    /// Run the control API: HTTP for people and programs
    ControlApi(roles::ApiArgs),
    /// Run the simulator service, or command simulators
    Simulator(simulator::SimulatorArgs),
}

/// Whoever reads our output may stop reading (`| head`): then there is nobody to tell anything.
fn end_quietly_without_a_reader() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload_as_str().unwrap_or_default();
        if text.starts_with("failed printing to stdout") {
            std::process::exit(1);
        }
        usual(panic);
    }));
}

fn main() -> ExitCode {
    end_quietly_without_a_reader();
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        let done = runtime.block_on(run(cli.command, &cli.globals));
        // What still runs (a read of standard input, a lost connection) must not hold the exit.
        runtime.shutdown_background();
        done
    });
    done.unwrap_or_else(|error| {
        eprintln!("haystack: {}", said_once(&error));
        ExitCode::FAILURE
    })
}

/// An error and its causes, without a cause that the text before it has told already.
fn said_once(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

async fn run(command: Command, globals: &Globals) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up(args) => up::run(args, globals).await,
        Command::Down(args) => up::down(args, globals).await,
        Command::Env(args) => up::env(args, globals).await,
        Command::Status(args) => status::run(&args, globals).await,
        Command::Doctor(args) => doctor::run(&args, globals).await,
        Command::Transactions(args) => transactions::run(&args, globals).await,
        Command::DeadLetters(command) => dead_letters::run(command, globals).await,
        Command::Replay(args) => replay::run(args, globals).await,
        Command::Job(command) => job::run(command, globals).await,
        Command::Healthy(args) => healthy::run(&args, globals).await,
        Command::Verify(args) => verify::run(&args, globals).await,
        Command::Trace(args) => trace::run(&args, globals).await,
        Command::Ledger(args) => ledger::run(&args, globals).await,
        Command::Gaps(args) => gaps::run(&args, globals).await,
        Command::Targets(command) => targets::run(command, globals).await,
        Command::Config(args) => settings::run(&args, globals),
        Command::Migrate(args) => migrate::run(&args, globals).await,
        Command::Org(command) => org::run(command, globals).await,
        Command::DeviceType(command) => device_type::run(command, globals).await,
        Command::Device(command) => device::run(command, globals).await,
        Command::Key(command) => key::run(command, globals).await,
        Command::Token(args) => token::run(args, globals).await,
        Command::User(command) => user::run(command, globals).await,
        Command::ControlApi(args) => roles::api(&args, globals).await,
        Command::Pki(args) => pki::run(args, globals).await,
        Command::Demo(args) => demo::run(&args, globals).await,
        Command::Bridge(args) => roles::run(args.role(), globals).await,
        Command::Ingest => roles::run(roles::Role::Ingest, globals).await,
        Command::Simulator(args) => simulator::run(args, globals).await,
    }
}
