//! The one place that decides what a database error means. Holding is the default.

use std::fmt;

/// What to do about a failed statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Two writers met: the same again, at once.
    Again,
    /// An outage, however it looks: wait and try again, however long it lasts.
    Hold,
    /// The data can never be stored as it is. Only shown on a single row while its neighbours
    /// commit does this make a dead letter.
    Data,
    /// Late rows for compressed chunks: the same again with the decompression limit lifted.
    SlowPath,
    /// The key is there already.
    Conflict,
}

/// Decides by SQLSTATE (PostgreSQL manual, appendix A); `None` is an error that no server sent.
pub fn decide(sqlstate: Option<&str>) -> Verdict {
    match sqlstate {
        // serialization_failure, deadlock_detected, lock_not_available
        Some("40001" | "40P01" | "55P03") => Verdict::Again,
        // configuration_limit_exceeded: TimescaleDB's decompression limit
        Some("53400") => Verdict::SlowPath,
        // unique_violation
        Some("23505") => Verdict::Conflict,
        // foreign_key_violation: what it refers to may still come
        Some("23503") => Verdict::Hold,
        Some(state) if state.starts_with("22") || state.starts_with("23") => Verdict::Data,
        _ => Verdict::Hold,
    }
}

/// What the person who runs the platform can do about it.
fn advice(sqlstate: &str) -> Option<&'static str> {
    Some(match sqlstate {
        "42P01" | "3F000" => "a table is missing: run `haystack migrate`",
        "42703" | "42883" => "the tables are of another version: run `haystack migrate`",
        "42501" => "grant the right to the role that writes, or run `haystack migrate`",
        "25006" => "the server is read-only: is it a standby?",
        "28000" | "28P01" => "check user, password file and pg_hba.conf",
        "3D000" => "the database does not exist: create it",
        "53100" => "the server's disk is full",
        "53300" => "raise the server's max_connections",
        "57P03" => "the server is starting or stopping",
        _ => return None,
    })
}

/// A database error, decided upon. Its text holds no secrets and may be shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Fault {
    /// What to do about it.
    pub verdict: Verdict,
    /// SQLSTATE, where a server sent the error.
    pub sqlstate: Option<String>,
    /// What happened, for people.
    pub reason: String,
}

/// Characters of a server's message that a reason repeats.
const SHOWN: usize = 300;

impl Fault {
    /// An outage that is not a server's error.
    pub fn hold(reason: impl Into<String>) -> Self {
        Self { verdict: Verdict::Hold, sqlstate: None, reason: reason.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// Decides about an error.
pub fn classify(error: &sqlx::Error) -> Fault {
    match error {
        sqlx::Error::Database(error) => {
            let state = error.code().unwrap_or_default();
            let message: String = error.message().chars().take(SHOWN).collect();
            let mut reason = format!("{message} (SQLSTATE {state})");
            if let Some(advice) = advice(&state) {
                reason = format!("{reason}; {advice}");
            }
            let sqlstate = Some(state.into_owned());
            Fault { verdict: decide(sqlstate.as_deref()), sqlstate, reason }
        }
        sqlx::Error::PoolTimedOut => Fault::hold(
            "no connection in time: the server does not answer, or all connections are in use",
        ),
        sqlx::Error::Io(error) => Fault::hold(format!("connection to the database: {error}")),
        other => Fault::hold(other.to_string().chars().take(SHOWN).collect::<String>()),
    }
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        classify(&error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::{Again, Conflict, Data, Hold, SlowPath};

    #[test]
    fn each_state_has_its_verdict_and_holding_is_the_default() {
        let table = [
            ("40001", Again),
            ("40P01", Again),
            ("55P03", Again),
            ("40003", Hold),
            ("53400", SlowPath),
            ("53100", Hold),
            ("53300", Hold),
            ("23505", Conflict),
            ("23503", Hold),
            ("23502", Data),
            ("23514", Data),
            ("22021", Data),
            ("22P02", Data),
            ("22003", Data),
            ("42P01", Hold),
            ("42501", Hold),
            ("25006", Hold),
            ("25P02", Hold),
            ("28P01", Hold),
            ("57014", Hold),
            ("57P01", Hold),
            ("XX000", Hold),
            ("2", Hold),
            ("", Hold),
        ];
        for (state, verdict) in table {
            assert_eq!(decide(Some(state)), verdict, "{state}");
        }
        assert_eq!(decide(None), Hold);
    }

    #[test]
    fn an_error_that_no_server_sent_is_an_outage() {
        for error in [sqlx::Error::PoolTimedOut, sqlx::Error::WorkerCrashed] {
            assert_eq!(classify(&error).verdict, Hold);
        }
    }
}
