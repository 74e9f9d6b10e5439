//! One service as a process: what containers and `up` run.

use crate::{Globals, connect};
use anyhow::Context;
use clap::Args;
use domain::Holds;
use service::{Config, Lifecycle, failpoint, health, logs};
use std::{net::SocketAddr, process::ExitCode, time::Duration};
use tokio::net::TcpListener;

/// How long services have to say that they run.
const LISTEN: Duration = Duration::from_secs(1);

#[derive(Args)]
pub(crate) struct BridgeArgs {
    /// Give up this instance's place at the broker for good: what the broker still holds for it is
    /// stored, its session ends, and this returns. For fewer bridges of one `mqtt.share`
    #[arg(long)]
    leave: bool,
}

impl BridgeArgs {
    pub(crate) fn role(&self) -> Role {
        if self.leave { Role::LeavingBridge } else { Role::Bridge }
    }
}

/// A service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// MQTT to the streams.
    Bridge,
    /// The same, to leave the broker for good.
    LeavingBridge,
    /// The streams to every database.
    Ingest,
    /// Simulated buildings to the streams.
    Simulator,
}

#[derive(Args)]
pub(crate) struct ApiArgs {
    /// Print the description of the API, as /openapi.json serves it, and do nothing else
    #[arg(long)]
    openapi: bool,
}

/// Runs the control API until SIGTERM or SIGINT. From the first moment on it says that it is alive.
pub(crate) async fn api(args: &ApiArgs, globals: &Globals) -> anyhow::Result<ExitCode> {
    if args.openapi {
        print!("{}", control_api::document());
        return Ok(ExitCode::SUCCESS);
    }
    let config = globals.load()?.config;
    logs::start(&config.log)?;
    failpoint::arm_from_environment()?;
    let lifecycle = Lifecycle::default();
    lifecycle.stop_on_signals()?;
    let holds = Holds::default();
    holds.hold("model", "MODEL is not read yet", connect::now_here());
    let metrics = health::collect()?;
    let address = config.api.http;
    let bound = std::net::TcpListener::bind(address);
    let bound = bound
        .with_context(|| format!("api.http: {address} can't be listened on; choose another"))?;
    bound.set_nonblocking(true)?;
    let opened = lifecycle.shutdown.child_token();
    let starting = TcpListener::from_std(bound.try_clone()?)?;
    lifecycle.spawn(control_api::starting::serve(starting, holds.clone(), opened.clone()));
    let listener = TcpListener::from_std(bound)?;
    if let Some(wire) = connect::patiently(&config, "api", &holds, &lifecycle.shutdown).await? {
        tracing::info!(service = "control-api", version = env!("CARGO_PKG_VERSION"), %address, "started");
        control_api::run(&config, wire, listener, &lifecycle, holds, metrics, opened).await?;
    }
    lifecycle.shutdown.cancel();
    if !lifecycle.drained().await {
        tracing::warn!("stopped before all requests were answered");
    }
    Ok(ExitCode::SUCCESS)
}

impl Role {
    /// Also the name of its user at the NATS server.
    fn name(self) -> &'static str {
        match self {
            Self::Bridge | Self::LeavingBridge => "bridge",
            Self::Ingest => "ingest",
            Self::Simulator => "simulator",
        }
    }

    /// What must have happened once before the service is ready, as holds.
    fn not_ready_yet(self, config: &Config, holds: &Holds) {
        let now = connect::now_here();
        match self {
            Self::Bridge | Self::LeavingBridge => {
                holds.hold("mqtt", "not subscribed at the broker yet", now);
            }
            Self::Simulator => {
                holds.hold("model", "MODEL is not read yet", now);
            }
            Self::Ingest => {
                for target in config.targets.keys() {
                    holds.hold(&format!("{target}/MODEL"), "MODEL is not applied yet", now);
                }
            }
        }
    }

    fn http(self, config: &Config) -> SocketAddr {
        match self {
            Self::Bridge => config.bridge.http,
            // Nobody asks for its health, and another bridge may have the port.
            Self::LeavingBridge => SocketAddr::from(([127, 0, 0, 1], 0)),
            Self::Ingest => config.ingest.http,
            Self::Simulator => config.simulator.http,
        }
    }
}

/// Runs the service until SIGTERM or SIGINT.
pub(crate) async fn run(role: Role, globals: &Globals) -> anyhow::Result<ExitCode> {
    let config = globals.load()?.config;
    logs::start(&config.log)?;
    failpoint::arm_from_environment()?;
    let lifecycle = Lifecycle::default();
    lifecycle.stop_on_signals()?;
    let holds = Holds::default();
    role.not_ready_yet(&config, &holds);
    serve_health(role, &config, &lifecycle, &holds).await?;
    let wire = connect::patiently(&config, role.name(), &holds, &lifecycle.shutdown).await?;
    if let Some(wire) = wire {
        tracing::info!(service = role.name(), version = env!("CARGO_PKG_VERSION"), "started");
        match role {
            Role::Bridge => bridge::run(&config, wire, &lifecycle, holds).await?,
            Role::LeavingBridge => {
                nobody_runs(&config).await?;
                bridge::leave(&config, wire, &lifecycle, holds).await?;
                println!("{} has left the broker", config.bridge.instance);
            }
            Role::Ingest => ingest::run(&config, wire, &lifecycle, holds).await?,
            Role::Simulator => ::simulator::run(&config, wire, &lifecycle, holds).await?,
        }
    }
    // A service that returns by itself has nothing more to do.
    lifecycle.shutdown.cancel();
    if !lifecycle.drained().await {
        tracing::warn!("stopped before all was drained; the streams deliver it again");
    }
    Ok(ExitCode::SUCCESS)
}

/// Taking the session of a bridge that runs would leave it without one.
async fn nobody_runs(config: &Config) -> anyhow::Result<()> {
    let wire = connect::now(config, "operator").await?;
    let reports = nats::report::gather(&wire, LISTEN).await;
    let instance = &config.bridge.instance;
    let runs =
        |report: &nats::report::Report| report.service == "bridge" && report.instance == *instance;
    anyhow::ensure!(
        !reports.iter().any(runs),
        "{instance} runs; stop it first, or name another with --set bridge.instance=…"
    );
    Ok(())
}

async fn serve_health(
    role: Role,
    config: &Config,
    lifecycle: &Lifecycle,
    holds: &Holds,
) -> anyhow::Result<()> {
    let address = role.http(config);
    let metrics = health::collect()?;
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("{}.http: {address} can't be listened on; choose another", role.name())
    })?;
    let served = health::serve(listener, holds.clone(), metrics, lifecycle.shutdown.clone());
    lifecycle.spawn(async move {
        if let Err(error) = served.await {
            tracing::error!(%error, "health and metrics are no longer served");
        }
    });
    Ok(())
}
