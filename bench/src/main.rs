//! `haystack-bench`: what this machine gives, and how much of it our services take up.

mod api;
mod bars;
mod bulk;
mod chunks;
mod copy;
mod crowd;
mod custody;
mod databases;
mod drain;
mod fastapi;
mod feed;
mod history;
mod http;
mod ingest;
mod latency;
mod load;
mod machine;
mod message;
mod meter;
mod mqtt;
mod options;
mod pipeline;
mod process;
mod publish;
mod python;
mod report;
mod simulate;
mod stack;
mod tls;
mod traffic;

use clap::{Parser, Subcommand};
use options::{Family, Options};
use report::Report;
use stack::Stack;

/// Measures COPY, ingest, durable publishing, the simulator, the whole path from MQTT into two databases and
/// the API, on private servers with the configuration that we ship.
#[derive(Parser)]
#[command(name = "haystack-bench", max_term_width = 100, args_conflicts_with_subcommands = true)]
#[command(after_help = PEERS)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

const PEERS: &str = "Peers (Python programs that do the same job): bench/README.md says how to measure them beside us.";

#[derive(Subcommand)]
enum Command {
    /// Publish readings by MQTT 3.1.1 QoS 1: n=… per=… size=… to the port in `MQTT_PORT`
    Load {
        /// key=value, all of them in bench/README.md
        args: Vec<String>,
    },
    /// Subscribe and acknowledge at once: n=… at the port in `MQTT_PORT`
    Drain {
        /// key=value, all of them in bench/README.md
        args: Vec<String>,
    },
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match cli.command {
        Some(Command::Load { args }) => load::main(&args),
        Some(Command::Drain { args }) => drain::main(&args),
        None => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(measure(&cli.options))
        }
    }
}

async fn measure(options: &Options) -> anyhow::Result<()> {
    let haystack = options.haystack()?;
    report::progress("starting private servers");
    let stack = Stack::start(haystack).await?;
    let mut report = Report::new(machine::describe(stack.folder())?, stack.configuration().await?);
    print!("{}", report.head());
    let done = async {
        if options.asks_for(Family::Copy) || options.asks_for(Family::Ingest) {
            ingest::rounds(&stack, options, &mut report).await?;
        }
        if options.asks_for(Family::Waiting) {
            ingest::waiting(&stack, options, &mut report).await?;
        }
        if options.asks_for(Family::Publish) {
            publish::rounds(&stack, options, &mut report).await?;
        }
        if options.asks_for(Family::Simulator) {
            simulate::rounds(&stack, options, &mut report).await?;
        }
        if options.asks_for(Family::Mqtt) {
            pipeline::rounds(&stack, options, &mut report).await?;
        }
        if options.asks_for(Family::Devices) {
            pipeline::devices(&stack, options, &mut report).await?;
        }
        if options.asks_for(Family::Latency) {
            latency::rounds(&stack, options, &mut report).await?;
        }
        if options.asks_for(Family::Chunks) {
            chunks::rounds(&stack, options, &mut report).await?;
        }
        if options.asks_for(Family::Crowd) {
            crowd::rounds(&stack, options, &mut report).await?;
        }
        if options.asks_for(Family::Custody) {
            custody::rounds(&stack, options, &mut report).await?;
        }
        if options.asks_for(Family::Api) {
            api::rounds(&stack, options, &mut report).await?;
        }
        anyhow::Ok(())
    };
    let done = done.await;
    // What was measured before a failure is worth seeing.
    print!("{}", report.table());
    let path = options.json()?;
    report.write(&path)?;
    println!("\nall of it: {}", path.display());
    done
}
