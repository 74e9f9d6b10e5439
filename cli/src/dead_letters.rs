//! `haystack dead-letters`: what could not be processed, looked at, tried again, or given up.

use crate::{Globals, connect, table::Table};
use clap::{Args, Subcommand};
use domain::{
    Letter, OrgKey, Reason, Stage,
    recall::{Ask, Message, Shown, Told},
};
use nats::{
    Wire,
    letters::{self, Filed, Filter, Tally},
};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Letters that are looked at with one request.
const PAGE: usize = 500;
/// Longest detail in a table, in characters.
const DETAIL: usize = 60;
/// Refusals that are shown.
const REFUSALS: usize = 5;

#[derive(Subcommand)]
pub(crate) enum LettersCommand {
    /// List dead letters, the oldest first
    List {
        #[command(flatten)]
        which: WhichArgs,
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Behind the letter of this number
        #[arg(long, default_value_t = 0)]
        after: u64,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one: why it is dead, how often it was tried, and what it is about
    Show {
        /// Its number
        number: u64,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Try letters again: one, several, or all that a filter names
    ///
    /// What they give has the version that it would have had at first: it never overwrites what came
    /// later. One that fails again is the same letter with one more attempt.
    Redrive {
        /// Their numbers
        numbers: Vec<u64>,
        /// All letters
        #[arg(long, conflicts_with_all = ["numbers", "stage", "org", "no_org", "sender", "reason"])]
        all: bool,
        #[command(flatten)]
        which: WhichArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Take letters away for good; who did it and why is kept on record
    Drop {
        /// Their numbers
        #[arg(required = true)]
        numbers: Vec<u64>,
        /// Why they are not tried again
        #[arg(long)]
        reason: String,
    },
}

/// Which letters.
#[derive(Args)]
pub(crate) struct WhichArgs {
    /// Where processing gave up: assemble, normalize, ingest
    #[arg(long)]
    stage: Option<Stage>,
    /// Of this org
    #[arg(long)]
    org: Option<OrgKey>,
    /// Of no known org, as those of unknown devices are
    #[arg(long, conflicts_with = "org")]
    no_org: bool,
    /// Of this device or producer
    #[arg(long)]
    sender: Option<String>,
    /// For this reason, e.g. `unknown_device`
    #[arg(long)]
    reason: Option<Reason>,
}

impl WhichArgs {
    fn filter(self) -> Filter {
        let Self { stage, org, no_org, sender, reason } = self;
        Filter { stage, org: if no_org { Some(None) } else { org.map(Some) }, sender, reason }
    }
}

pub(crate) async fn run(command: LettersCommand, globals: &Globals) -> anyhow::Result<ExitCode> {
    let wire = connect::by_hand(&globals.load()?.config).await?;
    match command {
        LettersCommand::List { which, limit, after, json } => {
            list(&wire, &which.filter(), after, limit, json).await
        }
        LettersCommand::Show { number, json } => show(&wire, number, json).await,
        LettersCommand::Redrive { numbers, all, which, json } => {
            let filter = which.filter();
            let filtered = all || filter != Filter::default();
            anyhow::ensure!(
                filtered == numbers.is_empty(),
                "name letters by number, or by --stage, --org, --no-org, --sender, --reason, or --all"
            );
            let tally = if filtered {
                Tally { gone: 0, ..by_filter(&wire, &filter, json).await? }
            } else {
                letters::redrive(&wire, numbers).await
            };
            Ok(tell(&tally, json)?)
        }
        LettersCommand::Drop { numbers, reason } => {
            let mut all = true;
            for number in numbers {
                match letters::ask(&wire, &Ask::Drop { number, reason: reason.clone() }).await {
                    Ok(_) => println!("letter {number} is dropped"),
                    Err(refusal) => {
                        eprintln!("haystack: letter {number}: {refusal}");
                        all = false;
                    }
                }
            }
            Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

async fn list(
    wire: &Wire,
    filter: &Filter,
    after: u64,
    limit: usize,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let until = letters::newest(wire).await?;
    let page = letters::page(wire, filter, (after, until), (limit, usize::MAX)).await?;
    if as_json {
        let all: Vec<Value> = page.letters.iter().map(shown_filed).collect();
        println!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(ExitCode::SUCCESS);
    }
    if page.letters.is_empty() {
        println!("no such dead letters");
        return Ok(ExitCode::SUCCESS);
    }
    let head = ["number", "stage", "org", "sender", "reason", "tried", "since", "what exactly"];
    let mut table = Table::new(head);
    for Filed { number, letter } in &page.letters {
        table.row(match letter {
            Ok(letter) => row(*number, letter),
            Err(why) => {
                let mut cells = std::array::from_fn(|_| String::new());
                (cells[0], cells[7]) = (number.to_string(), short(why));
                cells
            }
        });
    }
    table.print();
    if page.next.is_some_and(|next| next < until) {
        println!("… there may be more: --limit, --after {}", page.next.unwrap_or_default());
    }
    Ok(ExitCode::SUCCESS)
}

fn row(number: u64, letter: &Letter) -> [String; 8] {
    let stage = match &letter.target {
        Some(target) => format!("{} into {target}", letter.stage.as_str()),
        None => letter.stage.as_str().to_owned(),
    };
    [
        number.to_string(),
        stage,
        letter.org.as_ref().map(ToString::to_string).unwrap_or_default(),
        letter.sender.clone(),
        letter.reason.to_string(),
        letter.attempts.to_string(),
        letter.at.to_string(),
        match letter.messages() {
            1 => short(&letter.detail),
            many => short(&format!("{many} messages; the last: {}", letter.detail)),
        },
    ]
}

fn short(text: &str) -> String {
    if text.chars().count() <= DETAIL {
        return text.to_owned();
    }
    text.chars().take(DETAIL - 1).chain(['…']).collect()
}

fn shown_filed(filed: &Filed) -> Value {
    match &filed.letter {
        Ok(letter) => shown(filed.number, letter),
        Err(why) => json!({ "number": filed.number, "unreadable": why }),
    }
}

fn shown(number: u64, letter: &Letter) -> Value {
    json!({
        "number": number,
        "about": letter.about(),
        "stage": letter.stage,
        "target": letter.target,
        "org": letter.org,
        "sender": letter.sender,
        "reason": letter.reason,
        "detail": letter.detail,
        "attempts": letter.attempts,
        "messages": letter.messages(),
        "at": letter.at.to_string(),
        "source": letter.source,
        "accepted_at": letter.origin.map(|origin| origin.accepted_at.to_string()),
        "revision": letter.revision,
        "row": letter.row.as_deref().and_then(|row| serde_json::from_str::<Value>(row).ok()),
        "waiting_for": letter.waiting.map(|waiting| waiting.sequence),
        "attachments": letter.attachments.iter().map(|it| &it.name).collect::<Vec<_>>(),
    })
}

async fn show(wire: &Wire, number: u64, as_json: bool) -> anyhow::Result<ExitCode> {
    let Told::Shown(shown) = letters::ask(wire, &Ask::Show { number }).await? else {
        anyhow::bail!("the bridge is of another release");
    };
    let Shown { letter, message } = *shown;
    let mut whole = self::shown(number, &letter);
    whole["message"] = message.as_ref().map_or(Value::Null, message_as_json);
    if as_json {
        println!("{}", serde_json::to_string_pretty(&whole)?);
        return Ok(ExitCode::SUCCESS);
    }
    let line = |name: &str, value: &str| println!("{name:12} {value}");
    line("letter", &format!("{number} ({})", letter.about()));
    let [_, stage, org, sender, reason, attempts, at, _] = row(number, &letter);
    line("reason", &format!("{reason}: {}", letter.detail));
    line("given up at", &stage);
    line(
        "sender",
        &format!("{sender} {}", if org.is_empty() { "(of no known org)" } else { &org }),
    );
    line("tried", &format!("{attempts} times, the last time {at}"));
    if let Some(waiting) = letter.waiting {
        line("waits for", &format!("what its target says of TELEMETRY {}", waiting.sequence));
    }
    if let Some(text) = &letter.row {
        line("row", text);
    }
    for attachment in &letter.attachments {
        line("kept", &format!("{}, {} bytes", attachment.name, attachment.bytes.len()));
    }
    match &message {
        None if letter.stage == Stage::Normalize => {
            line("message", "RAW does not have it any more");
        }
        None => {}
        Some(message) => {
            line("message", &format!("{} bytes of {}", message.bytes, message.content_type));
            line("received", &message.received_at.to_string());
            line("profile", message.profile.as_deref().unwrap_or("none: the sender was not known"));
            println!("\n{}", text(message));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn message_as_json(message: &Message) -> Value {
    json!({
        "name": message.name,
        "content_type": message.content_type,
        "received_at": message.received_at.to_string(),
        "profile": message.profile,
        "bytes": message.bytes,
        "payload": serde_json::from_slice::<Value>(&message.payload)
            .unwrap_or_else(|_| Value::String(text(message))),
    })
}

/// A payload for people: as it is, or its bytes in hexadecimal.
fn text(message: &Message) -> String {
    let cut = if message.payload.len() < message.bytes { "…" } else { "" };
    match std::str::from_utf8(&message.payload) {
        Ok(text) if !text.contains(|c: char| c.is_control() && !c.is_whitespace()) => {
            format!("{text}{cut}")
        }
        _ => {
            let bytes: Vec<_> = message.payload.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{}{cut}", bytes.join(" "))
        }
    }
}

/// Tries all letters again that lie there now: those that fail again lie behind them.
/// Rounds over all letters, where some were gone when they were to be tried.
const ROUNDS: u32 = 5;

async fn by_filter(wire: &Wire, filter: &Filter, quiet: bool) -> anyhow::Result<Tally> {
    let (mut tally, mut tried) = (Tally::default(), 0);
    // A letter that stands for many gets another number with each message that is put to it meanwhile.
    for _ in 0..ROUNDS {
        let (until, mut after) = (letters::newest(wire).await?, 0);
        let gone = std::mem::take(&mut tally.gone);
        loop {
            let page = letters::page(wire, filter, (after, until), (PAGE, usize::MAX)).await?;
            tried += page.letters.len();
            let numbers: Vec<u64> = page.letters.iter().map(|filed| filed.number).collect();
            tally.add(letters::redrive(wire, numbers).await);
            if !quiet {
                eprint!(
                    "\rtried again: {tried}, delivered {}, failed again {} ",
                    tally.delivered, tally.again
                );
            }
            match page.next {
                Some(next) => after = next,
                None => break,
            }
        }
        if tally.gone == 0 || tally.again + tally.refused.len() > 0 {
            tally.gone += gone;
            break;
        }
    }
    if !quiet {
        eprintln!();
    }
    Ok(tally)
}

fn tell(tally: &Tally, as_json: bool) -> anyhow::Result<ExitCode> {
    let Tally { delivered, again, waiting, gone, refused } = tally;
    if as_json {
        let refused: Vec<_> = refused
            .iter()
            .map(|(number, why)| json!({ "number": number, "why": why.text }))
            .collect();
        let told = json!({ "delivered": delivered, "again": again, "waiting": waiting, "gone": gone,
            "refused": refused });
        println!("{}", serde_json::to_string_pretty(&told)?);
    } else {
        println!("delivered {delivered}, failed again {again}, refused {}", refused.len());
        if *waiting > 0 {
            println!("{waiting} wait for what their targets say: redrive them again to hear it");
        }
        if *gone > 0 {
            println!("{gone} are not there (any more)");
        }
        for (number, why) in refused.iter().take(REFUSALS) {
            println!("letter {number}: {why}");
        }
    }
    let done = *again + *waiting + *gone == 0 && refused.is_empty();
    Ok(if done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A hint where there are letters.
pub(crate) const HINT: &str = "`haystack dead-letters list` names each";
