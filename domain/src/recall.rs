//! Dead letters looked at, tried again and dropped: what bridges are asked, and what they answer.

use crate::{Letter, Reason, Timestamp};
use serde::{Deserialize, Serialize};

/// Where bridges answer: name and id of their service.
pub const SERVICE: (&str, &str) = ("bridge", "letters");
/// What they can be asked.
pub const VERBS: [&str; 3] = ["show", "redrive", "drop"];
/// Longest text of why a letter is dropped, in bytes.
pub const MAX_REASON: usize = 1_000;
/// Most bytes of a payload that are shown.
pub const MAX_SHOWN: usize = 64 << 10;

/// A request about a letter, by its number in `DEAD`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// What the letter is about, as it came.
    Show {
        /// The letter.
        number: u64,
    },
    /// Try it again.
    Redrive {
        /// The letter.
        number: u64,
    },
    /// Never try it again.
    Drop {
        /// The letter.
        number: u64,
        /// Why, for people.
        reason: String,
    },
}

impl Ask {
    /// The last token of its subject.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Show { .. } => VERBS[0],
            Self::Redrive { .. } => VERBS[1],
            Self::Drop { .. } => VERBS[2],
        }
    }

    /// The letter it is about.
    pub fn number(&self) -> u64 {
        match self {
            Self::Show { number } | Self::Redrive { number } | Self::Drop { number, .. } => *number,
        }
    }
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// To [`Ask::Show`].
    Shown(Box<Shown>),
    /// To [`Ask::Redrive`].
    Redriven(Redriven),
    /// To [`Ask::Drop`]: it is noted, and is no letter any more.
    Dropped,
}

/// A letter and what it is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shown {
    /// The letter.
    pub letter: Letter,
    /// The device's message, where there is one and its stream still has it.
    pub message: Option<Message>,
}

/// A device's message as it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// What the sender called itself.
    pub name: String,
    /// Its media type.
    pub content_type: String,
    /// When it came.
    pub received_at: Timestamp,
    /// The version of a device type that normalizes it.
    pub profile: Option<String>,
    /// How many bytes it has.
    pub bytes: usize,
    /// The first of them.
    #[serde(with = "serde_bytes")]
    pub payload: Vec<u8>,
}

/// What became of a letter that was tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Redriven {
    /// All of it is on its way to the targets, or there: the letter is gone.
    Delivered,
    /// It failed again: it is the same letter with one more attempt, under another number.
    Again {
        /// Its number from now on.
        number: u64,
        /// How often it was tried.
        attempts: u32,
        /// Why.
        reason: Reason,
        /// What exactly.
        detail: String,
    },
    /// The stream has it, and the target has not told yet what became of it: asking again tells, and sends
    /// nothing anew.
    Waiting {
        /// Its number from now on.
        number: u64,
    },
    /// It stood for many: some of those are letters of their own now, to be tried again each.
    Unfolded {
        /// Their numbers.
        numbers: Vec<u64>,
        /// The number of what stands for the rest.
        rest: Option<u64>,
        /// Where that lies, whatever its number is meanwhile.
        subject: String,
    },
}
