//! Named places where a test kills the process: the crash windows, as a short list.
//!
//! Without the feature `failpoints` [`hit`] is empty. With it, [`arm`] chooses one place and how
//! many hits pass before the process aborts.

/// After the stream's yes, before the broker is told.
pub const BEFORE_PUBACK: &str = "bridge.before_puback";
/// After the record of a gateway transaction's end, before anything was done about it.
pub const BEFORE_ASSEMBLED: &str = "chunks.before_assembled";
/// After an assembled report is stored, before its parts are removed.
pub const BEFORE_PARTS_REMOVED: &str = "chunks.before_parts_removed";
/// After the parts are removed, before the end is marked as done.
pub const BEFORE_END_DONE: &str = "chunks.before_end_done";
/// After the normalized readings are stored, before `RAW` is told.
pub const BEFORE_RAW_ACK: &str = "normalize.before_raw_ack";
/// Rows were committed in parts, their messages are not in the ledger yet.
pub const BEFORE_LEDGER: &str = "ingest.before_ledger";
/// After COMMIT, before the stream is told.
pub const BEFORE_TELEMETRY_ACK: &str = "ingest.before_telemetry_ack";
/// After an archive's COMMIT, before `RAW` is told.
pub const BEFORE_ARCHIVE_ACK: &str = "archive.before_raw_ack";
/// A letter that stands for many is full and closed, before another takes its place.
pub const AFTER_MANY_CLOSED: &str = "letters.after_many_closed";
/// What a letter gives is stored, before the letter is taken out of `DEAD`.
pub const BEFORE_LETTER_LEAVES: &str = "letters.before_letter_leaves";
/// What a replay gives is stored, before it is noted how far it is.
pub const BEFORE_REPLAY_SAVED: &str = "replay.before_saved";
/// A piece of what a repair puts right is committed.
pub const AFTER_MENDED: &str = "repair.after_mended";
/// A job is done, before its record says so.
pub const BEFORE_JOB_DONE: &str = "job.before_done";
/// Rows are on their way into the database, nothing is committed.
pub const MID_COPY: &str = "store.mid_copy";
/// After a simulator's readings are stored, before its state is saved.
pub const BEFORE_STATE_SAVE: &str = "simulator.before_state_save";

/// All of them.
pub const ALL: [&str; 15] = [
    BEFORE_PUBACK,
    BEFORE_ASSEMBLED,
    BEFORE_PARTS_REMOVED,
    BEFORE_END_DONE,
    BEFORE_RAW_ACK,
    BEFORE_LEDGER,
    BEFORE_TELEMETRY_ACK,
    BEFORE_ARCHIVE_ACK,
    AFTER_MANY_CLOSED,
    BEFORE_LETTER_LEAVES,
    BEFORE_REPLAY_SAVED,
    AFTER_MENDED,
    BEFORE_JOB_DONE,
    MID_COPY,
    BEFORE_STATE_SAVE,
];

#[cfg(feature = "failpoints")]
mod armed {
    use std::sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    };

    struct Armed {
        name: String,
        passes: AtomicU64,
        on_hit: Box<dyn Fn() + Send + Sync>,
        dying: Mutex<()>,
    }

    static ARMED: OnceLock<Armed> = OnceLock::new();

    /// Aborts the process at the hit of `name` that follows `passes` harmless ones. `on_hit` runs
    /// first and leaves a trace, so that a test can show that the place was reached.
    pub fn arm(name: &str, passes: u64, on_hit: impl Fn() + Send + Sync + 'static) {
        let armed = Armed {
            name: name.to_owned(),
            passes: AtomicU64::new(passes),
            on_hit: Box::new(on_hit),
            dying: Mutex::new(()),
        };
        assert!(ARMED.set(armed).is_ok(), "one failpoint a process");
    }

    /// Marks a crash window.
    pub fn hit(name: &str) {
        let Some(armed) = ARMED.get().filter(|armed| armed.name == name) else { return };
        let pass =
            armed.passes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if pass.is_err() {
            // Others that come here meanwhile must not disturb the trace.
            let _one = armed.dying.lock().unwrap_or_else(PoisonError::into_inner);
            (armed.on_hit)();
            std::process::abort();
        }
    }
}

#[cfg(feature = "failpoints")]
pub use armed::{arm, hit};

/// Marks a crash window.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn hit(_name: &str) {}
