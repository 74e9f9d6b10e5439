//! Dead letters, looked at, tried again and dropped: request and reply over NATS.
//!
//! Each step may be done twice. What a letter gives is published under the versions that it would have had
//! at first, so a redrive that is repeated, or that comes after a correction, changes nothing it should not;
//! only then is the letter taken out.

mod normalized;
mod refused;
mod show;

pub(crate) use normalized::taken_by;

use crate::Shared;
use domain::{
    Clock, Letter, Reason, Stage, SystemClock,
    letter::Dropped,
    normalize::TimeLimits,
    recall::{Ask, MAX_REASON, Redriven, SERVICE, Told, VERBS},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use metrics::counter;
use nats::{
    Author, PublishFault,
    consume::subject_of,
    letters,
    micro::{Refusal, Serves, serve},
    streams::DEAD,
};

/// Letters that are worked on at once; more are told to come again.
const AT_ONCE: usize = 64;

/// Letters that are made of one that stands for many in one go, ...
const UNFOLDED: usize = 500;
/// ... and on their way at once.
const UNFOLDED_AT_ONCE: usize = 64;

/// Serves until shutdown.
pub(crate) async fn run(shared: Shared, limits: TimeLimits) {
    let serves = Serves { name: SERVICE, verbs: &VERBS, at_once: AT_ONCE };
    let (wire, patience) = (shared.wire.clone(), shared.patience("letters"));
    serve(&wire, &patience, serves, |ask: Ask, author| {
        let shared = shared.clone();
        async move { answer(&shared, limits, ask, author).await }
    })
    .await;
}

async fn answer(
    shared: &Shared,
    limits: TimeLimits,
    ask: Ask,
    author: Option<Author>,
) -> Result<Told, Refusal> {
    let number = ask.number();
    let letter = find(shared, number).await?;
    match ask {
        Ask::Show { .. } => Ok(Told::Shown(show::show(shared, letter).await?.into())),
        Ask::Redrive { .. } => {
            let redriven = redrive(shared, limits, number, letter).await?;
            let outcome = match &redriven {
                Redriven::Delivered => "delivered",
                Redriven::Again { .. } => "again",
                Redriven::Waiting { .. } => "waiting",
                Redriven::Unfolded { .. } => "unfolded",
            };
            counter!("haystack_bridge_letters_redriven_total", "outcome" => outcome).increment(1);
            Ok(Told::Redriven(redriven))
        }
        Ask::Drop { reason, .. } => {
            let by = author.map_or_else(|| "unknown".to_owned(), |author| author.who);
            drop_letter(shared, number, letter, by, reason).await.map(|()| Told::Dropped)
        }
    }
}

async fn find(shared: &Shared, number: u64) -> Result<Letter, Refusal> {
    let found = letters::get(&shared.wire, number).await.map_err(|fault| away(&fault))?;
    let none = || Refusal::new(404, format!("there is no letter {number} (any more)"));
    found.ok_or_else(none)?.letter.map_err(|why| {
        Refusal::new(409, format!("letter {number} can't be read by this release: {why}"))
    })
}

async fn redrive(
    shared: &Shared,
    limits: TimeLimits,
    number: u64,
    letter: Letter,
) -> Result<Redriven, Refusal> {
    if !letter.many.is_empty() {
        return unfold(shared, number, &letter).await;
    }
    let failed = match letter.stage {
        Stage::Assemble => {
            let text = "the parts of a report that is not whole can't be processed; the gateway must \
                        send it again. `haystack dead-letters drop` takes the letter away";
            return Err(Refusal::new(409, text));
        }
        Stage::Normalize => normalized::again(shared, limits, &letter).await?,
        Stage::Ingest => match refused::again(shared, &letter).await? {
            refused::Outcome::Stored => None,
            refused::Outcome::Refused(failed) => Some(*failed),
            refused::Outcome::Waiting(waiting) => {
                let asked_again = letter.waiting.is_some();
                if asked_again {
                    return Ok(Redriven::Waiting { number });
                }
                let noted = Letter { waiting: Some(waiting), ..letter.clone() };
                let stored = letters::file(&shared.wire, &noted).await;
                let stored = stored.map_err(|fault| away(&fault))?.sequence();
                letters::remove(&shared.wire, number).await.map_err(|fault| away(&fault))?;
                return Ok(Redriven::Waiting { number: stored });
            }
        },
    };
    let about = letter;
    let again = match failed {
        None => None,
        Some(Failed { letter, number: Some(number) }) => Some((number, letter)),
        Some(Failed { letter, number: None }) => {
            let stored =
                letters::file(&shared.wire, &letter).await.map_err(|fault| away(&fault))?;
            Some((stored.sequence(), letter))
        }
    };
    domain::failpoint::hit(domain::failpoint::BEFORE_LETTER_LEAVES);
    letters::remove(&shared.wire, number).await.map_err(|fault| away(&fault))?;
    // What could not be read as a whole may have given letters of its own, about parts of the same bytes.
    if again.is_none() && about.reason != Reason::Undecodable {
        letters::forget(&shared.wire, &about).await.map_err(|fault| away(&fault))?;
    }
    Ok(match again {
        None => Redriven::Delivered,
        Some((number, Letter { attempts, reason, detail, .. })) => {
            Redriven::Again { number, attempts, reason, detail }
        }
    })
}

/// Makes letters of their own of some that a letter stands for. Cut off, it is begun anew.
async fn unfold(shared: &Shared, number: u64, letter: &Letter) -> Result<Redriven, Refusal> {
    let wire = &shared.wire;
    let subject = subject_of(wire, DEAD, number).await.map_err(|fault| away(&fault))?;
    let none = || Refusal::new(404, format!("there is no letter {number} (any more)"));
    let subject = subject.ok_or_else(none)?;
    let places = &letter.many[..letter.many.len().min(UNFOLDED)];
    let letters = letter.apart(places);
    let file = |letter: Letter| async move { letters::file(wire, &letter).await };
    let filed = stream::iter(letters).map(file);
    let filed: Vec<_> =
        filed.buffered(UNFOLDED_AT_ONCE).try_collect().await.map_err(|it| away(&it))?;
    domain::failpoint::hit(domain::failpoint::BEFORE_LETTER_LEAVES);
    let rest = letters::take_out(wire, &subject, places).await.map_err(|fault| away(&fault))?;
    let numbers = filed.iter().map(nats::Fsynced::sequence).collect();
    Ok(Redriven::Unfolded { numbers, rest, subject })
}

/// A letter that failed again.
struct Failed {
    letter: Letter,
    /// Its new number, where it is filed already.
    number: Option<u64>,
}

async fn drop_letter(
    shared: &Shared,
    number: u64,
    letter: Letter,
    by: String,
    reason: String,
) -> Result<(), Refusal> {
    let reason = reason.trim();
    if reason.is_empty() || reason.len() > MAX_REASON {
        let text =
            format!("reason: 1 to {MAX_REASON} bytes are expected, why it is not tried again");
        return Err(Refusal::new(422, text));
    }
    let dropped = Dropped { by, reason: reason.to_owned(), at: SystemClock.now() };
    let noted = Letter { dropped: Some(dropped), attachments: Vec::new(), ..letter };
    letters::file(&shared.wire, &noted).await.map_err(|fault| away(&fault))?;
    letters::remove(&shared.wire, number).await.map_err(|fault| away(&fault))?;
    letters::forget(&shared.wire, &noted).await.map_err(|fault| away(&fault))
}

/// The stream server is away, or full. The letter stays.
fn away(fault: &PublishFault) -> Refusal {
    Refusal::new(503, format!("{fault}; the letter stays, try again later"))
}
