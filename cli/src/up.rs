//! `haystack up`, `down` and `env`: the whole platform on this machine, from one data folder.

mod backoff;
mod certificates;
mod child;
mod detach;
mod environment;
mod folder;
mod notice;
mod orphans;
mod ports;
mod probe;
mod servers;
mod services;
mod stack;

use crate::{Globals, live};
use anyhow::Context;
use clap::Args;
use nats::CancellationToken;
use servers::Doorstep;
use service::config;
use stack::Stack;
use std::{net::IpAddr, process::ExitCode};
use tokio::signal::unix::{Signal, SignalKind, signal};

pub(crate) use environment::env;
pub(crate) use folder::{Folder, pki as pki_folder};
pub(crate) use ports::{MQTTS, Ports};
pub(crate) use stack::shell;

#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(crate) struct UpArgs {
    /// Return when all is ready, and let it run in the background (`haystack down` stops it)
    #[arg(long)]
    detach: bool,
    /// Print no line a second
    #[arg(long)]
    no_live: bool,
    /// Address on which devices with certificates are let in; 0.0.0.0: from everywhere
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    mqtts_bind: IpAddr,
    /// A name or address by which devices reach this machine: it enters the broker's certificate
    /// (again for more of them; they are remembered)
    #[arg(long, value_name = "NAME")]
    mqtts_host: Vec<String>,
    /// Let clients without certificates in over WebSocket, e.g. a page in a browser. Mosquitto 2.0 listens
    /// on every address there, not on this machine's alone: close the port (8083) to others
    #[arg(long)]
    mqtt_ws: bool,
    /// Let devices with certificates in over WebSocket too. Mosquitto looks at no list of the revoked
    /// there: a revoked certificate gets in until it expires. And it can't read certificates anew while
    /// it runs: each change restarts it, and all devices connect again
    #[arg(long)]
    mqtt_wss: bool,
}

#[derive(Args)]
pub(crate) struct DownArgs {}

#[derive(Args)]
pub(crate) struct EnvArgs {}

pub(crate) async fn run(args: UpArgs, globals: &Globals) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(
        globals.config.is_none(),
        "`up` writes its own configuration; leave --config out and use --set KEY=VALUE or \
         HAYSTACK__SECTION__KEY"
    );
    if args.detach {
        return detach::run(&args, globals).await;
    }
    // A mistake in the settings is told before anything starts.
    globals.load()?;
    let mut signals = Signals::listen()?;
    let folder = Folder::open(&globals.data_dir)?;
    let lock = folder.lock()?;
    folder.forget_ready()?;
    let mut stack = Stack::default();
    let served = tokio::select! {
        served = serve(&mut stack, &folder, globals, &args) => served,
        () = signals.next() => Ok(()),
    };
    notice::say("stopping");
    let mut stopped = std::pin::pin!(stack.stop());
    loop {
        tokio::select! {
            () = &mut stopped => break,
            () = signals.next() => notice::say("still stopping; what is stored stays stored"),
        }
    }
    folder.forget_ready()?;
    drop(lock);
    served?;
    notice::say("stopped; `up` goes on with the same data");
    Ok(ExitCode::SUCCESS)
}

/// Starts everything, says so, and shows what flows. Ends only by an error, or by being dropped.
async fn serve(
    stack: &mut Stack,
    folder: &Folder,
    globals: &Globals,
    args: &UpArgs,
) -> anyhow::Result<()> {
    let doorstep = Doorstep {
        bind: args.mqtts_bind,
        hosts: args.mqtts_host.clone(),
        ws: args.mqtt_ws,
        wss: args.mqtt_wss,
    };
    stack.start(folder, doorstep, &globals.set).await?;
    stack.describe(folder, globals);
    folder.tell_ready()?;
    if args.no_live {
        return std::future::pending().await;
    }
    let config = config::load(Some(&folder.config()), folder.path(), &globals.set)?.config;
    let shutdown = CancellationToken::new();
    let _stops_with_us = shutdown.clone().drop_guard();
    // In a task of its own: what can't be shown must not end what runs.
    let _ = tokio::spawn(async move { live::follow(&config, shutdown).await }).await;
    std::future::pending().await
}

pub(crate) async fn down(_: DownArgs, globals: &Globals) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(
        globals.data_dir.is_dir(),
        "there is no {}; name the folder of the `up` to stop with --data-dir",
        globals.data_dir.display()
    );
    let folder = Folder::open(&globals.data_dir)?;
    if detach::stop(&folder).await? {
        notice::say("stopped; `up` goes on with the same data");
    } else {
        notice::say("nothing was running");
    }
    Ok(ExitCode::SUCCESS)
}

/// The signals that ask to stop: Ctrl-C, a supervisor's, a closed terminal's.
struct Signals([Signal; 3]);

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("can't listen to signals");
        Ok(Self([
            listen(SignalKind::interrupt())?,
            listen(SignalKind::terminate())?,
            listen(SignalKind::hangup())?,
        ]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
