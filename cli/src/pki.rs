//! `haystack pki`.

use crate::{Globals, crl, table::Table, up};
use clap::{Args, Subcommand};
use domain::{Clock, DeviceId, SystemClock, Timestamp};
use local::{
    mosquitto,
    pki::{Authority, DEVICE_DAYS, Issued, State},
};
use serde_json::json;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

#[derive(Args)]
pub(crate) struct PkiArgs {
    /// Folder of the authority [default: pki in the data folder]
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    command: PkiCommand,
}

#[derive(Subcommand)]
enum PkiCommand {
    /// Make an authority, or what is missing of it (`up` does)
    Init {
        /// A name or address by which devices reach the broker, beside this machine's own (again
        /// for more; they are remembered)
        #[arg(long, value_name = "NAME")]
        host: Vec<String>,
        /// Where brokers fetch the list of the revoked (EMQX does; `pki serve` serves it). It enters
        /// the certificates that are made from then on
        #[arg(long, value_name = "URL")]
        crl_url: Option<String>,
    },
    /// Make a certificate
    #[command(subcommand)]
    Issue(IssueCommand),
    /// Make a device's next certificate; the one before counts until it expires. DEVICE or --due
    Renew {
        /// The device (`pki list`)
        #[arg(required_unless_present = "due")]
        device: Option<DeviceId>,
        /// All devices whose certificate has used up two thirds of its time
        #[arg(long, conflicts_with = "device")]
        due: bool,
        /// Days that it lasts
        #[arg(long, default_value_t = DEVICE_DAYS)]
        days: u32,
    },
    /// Take certificates back: the connection ends within seconds, if `up` runs
    Revoke {
        /// Whose: a device's name, or the bridge's (`pki list`)
        name: String,
        /// Only the one with this serial (`pki list`)
        #[arg(long)]
        serial: Option<String>,
    },
    /// Show every certificate, and when it expires
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Renew the broker's certificate and the list of the revoked where they are due (`up` does,
    /// every hour)
    Refresh,
    /// Serve the list of the revoked at /crl.pem, for brokers that fetch it, and do every hour what
    /// `refresh` does
    Serve {
        /// Where to listen
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
        http: SocketAddr,
    },
}

#[derive(Subcommand)]
enum IssueCommand {
    /// The first certificate of a device
    Device {
        /// The device: A-Z, a-z, 0-9, _ and -, at most 64 characters
        device: DeviceId,
        /// Days that it lasts
        #[arg(long, default_value_t = DEVICE_DAYS)]
        days: u32,
    },
    /// The bridge's, for a broker that wants one (again: the next one; the one before counts on)
    Bridge {
        /// Days that it lasts
        #[arg(long, default_value_t = DEVICE_DAYS)]
        days: u32,
    },
}

pub(crate) async fn run(args: PkiArgs, globals: &Globals) -> anyhow::Result<ExitCode> {
    let now = SystemClock.now();
    let default = || up::pki_folder(&globals.data_dir);
    if let PkiCommand::Init { host, crl_url } = args.command {
        let folder = match args.dir {
            Some(folder) => folder,
            // Marked as a data folder, or `up` would not touch it.
            None => up::Folder::open(&globals.data_dir)?.pki(),
        };
        let authority = Authority::init(&folder, &host, now)?;
        if let Some(url) = crl_url {
            authority.publish_crl_at(&url, now)?;
        }
        println!("the authority is in {}; keep its ca.key to yourself", folder.display());
        println!("  give devices {}", authority.ca().display());
        return Ok(ExitCode::SUCCESS);
    }
    let authority = Authority::open(&args.dir.unwrap_or_else(default))?;
    let port = up::Ports::known(&globals.data_dir).of(up::MQTTS);
    match args.command {
        PkiCommand::Init { .. } => unreachable!("answered above"),
        PkiCommand::Issue(IssueCommand::Device { device, days }) => {
            tell_issued(&authority, &device, &authority.issue(&device, days, now)?, port);
        }
        PkiCommand::Issue(IssueCommand::Bridge { days }) => {
            let issued = authority.issue_service(mosquitto::USER, days, now)?;
            let (cert, key) = authority.service(mosquitto::USER);
            println!("the bridge has a certificate until {}", issued.until);
            println!("\n[mqtt]\nurl = \"mqtts://localhost:{port}\"");
            for (key, file) in [("ca", authority.ca()), ("cert", cert), ("key", key)] {
                let file = serde_json::Value::from(absolute(&file).to_string_lossy());
                println!("{key} = {file}");
            }
        }
        PkiCommand::Renew { device: Some(device), days, .. } => {
            tell_issued(&authority, &device, &authority.renew(&device, days, now)?, port);
            println!("\nThe one before counts until it expires; `previous-cert.pem` is it.");
        }
        PkiCommand::Renew { device: None, days, .. } => renew_due(&authority, days, now)?,
        PkiCommand::Revoke { name: device, serial } => {
            let revoked = authority.revoke(&device, serial.as_deref(), now)?;
            for issued in &revoked {
                println!("revoked {} of {device}", issued.serial);
            }
            if revoked.is_empty() {
                println!("nothing to revoke of {device} (it was so)");
            }
        }
        PkiCommand::List { json } => list(&authority.list()?, json, now),
        PkiCommand::Refresh => {
            let refreshed = authority.refresh(now)?;
            let told = |renewed| if renewed { "renewed" } else { "not due" };
            println!("the broker's certificate: {}", told(refreshed.server));
            println!("the list of the revoked: {}", told(refreshed.crl));
        }
        PkiCommand::Serve { http } => crl::serve(&authority, http).await?,
    }
    Ok(ExitCode::SUCCESS)
}

fn tell_issued(authority: &Authority, device: &DeviceId, issued: &Issued, port: u16) {
    let (cert, key) = authority.device(device);
    let path = |path: &Path| up::shell(&absolute(path).to_string_lossy());
    let (ca, cert, key) = (path(&authority.ca()), path(&cert), path(&key));
    println!("{device} has a certificate until {}", issued.until);
    println!("  serial       {}\n  certificate  {cert}\n  key          {key}", issued.serial);
    println!(
        "  authority    {ca}\n\nIts messages count from when it is registered (`haystack device add \
         {device} --type …`).\nSend a reading with it (the payload is a temperature sensor's):\n"
    );
    println!(
        "  mosquitto_pub -h localhost -p {port} --cafile {ca} --cert {cert} --key {key} -q 1 \
         -t devices/{device}/telemetry \
         -m \"{{\\\"ts\\\":\\\"$(date -u +%FT%TZ)\\\",\\\"temperature\\\":21.5,\\\"humidity\\\":40.2}}\""
    );
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn renew_due(authority: &Authority, days: u32, now: Timestamp) -> anyhow::Result<()> {
    let issued = authority.list()?;
    // Of each device the one that lasts longest decides.
    let mut newest = std::collections::BTreeMap::<&str, &Issued>::new();
    for it in issued.iter().filter(|it| it.counts(now)) {
        let known = newest.entry(&it.name).or_insert(it);
        if it.until > known.until {
            *known = it;
        }
    }
    let due = newest.values().filter(|it| it.state(now) == State::RenewalDue);
    let mut renewed = 0;
    // The broker's own name is no device's, and it is renewed by `refresh`.
    for device in due.filter_map(|it| DeviceId::parse(&it.name).ok()) {
        let next = authority.renew(&device, days, now)?;
        println!("{device} has a certificate until {}", next.until);
        renewed += 1;
    }
    println!("{renewed} renewed");
    Ok(())
}

fn list(issued: &[Issued], json: bool, now: Timestamp) {
    if json {
        let all: Vec<_> = issued
            .iter()
            .map(|it| {
                json!({ "name": it.name, "role": it.role, "serial": it.serial,
                    "from": it.from.to_string(), "until": it.until.to_string(),
                    "state": it.state(now), "revoked": it.revoked.map(|at| at.to_string()) })
            })
            .collect();
        println!("{}", serde_json::Value::from(all));
        return;
    }
    let mut table = Table::new(["name", "state", "expires", "serial"]);
    for it in issued {
        let state = match it.state(now) {
            State::Valid => "valid",
            State::RenewalDue => "renewal due",
            State::Expired => "expired",
            State::Revoked => "revoked",
        };
        table.row([it.name.clone(), state.to_owned(), expires(it, now), it.serial.clone()]);
    }
    table.print();
}

fn expires(issued: &Issued, now: Timestamp) -> String {
    const DAY: i64 = 86_400_000_000;
    let left = issued.until.micros() - now.micros();
    let day = issued.until.to_chrono().format("%F");
    match left / DAY {
        _ if left < 0 => format!("{day}, {} days ago", -left / DAY),
        0 => format!("{day}, in {} hours", left / (DAY / 24)),
        days => format!("{day}, in {days} days"),
    }
}
