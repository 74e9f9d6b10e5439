//! Reads a password file (PostgreSQL manual, "The Password File").

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path};

/// What a password is looked up by.
#[derive(Debug, Clone, Copy)]
pub struct Lookup<'a> {
    /// Host name, or the directory of a Unix socket.
    pub host: &'a str,
    /// Port.
    pub port: u16,
    /// Database.
    pub database: &'a str,
    /// User.
    pub user: &'a str,
}

/// Why a password file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is not there, or this user may not read it.
    #[error("password file {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// Others may read it.
    #[error("password file {path} can be read by others: chmod 600 {path}")]
    Open {
        /// The file.
        path: String,
    },
}

/// The password for a login; `None` where the file has no line for it.
pub fn read(path: &Path, lookup: Lookup<'_>) -> Result<Option<String>, Unreadable> {
    let shown = || path.display().to_string();
    let io = |source| Unreadable::Io { path: shown(), source };
    if fs::metadata(path).map_err(io)?.permissions().mode() & 0o077 != 0 {
        return Err(Unreadable::Open { path: shown() });
    }
    Ok(find(&fs::read_to_string(path).map_err(io)?, lookup))
}

/// The password of the first line that matches.
fn find(text: &str, lookup: Lookup<'_>) -> Option<String> {
    let port = lookup.port.to_string();
    let wanted = [lookup.host, port.as_str(), lookup.database, lookup.user];
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(fields).find_map(|mut fields| {
        let password = (fields.len() >= 5).then(|| fields.split_off(4).join(":"))?;
        let matches = |(have, want): (&String, &str)| have == "*" || have == want;
        fields.iter().zip(wanted).all(matches).then_some(password)
    })
}

/// Splits at colons; a backslash takes the next character as it is.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        let taken = match c {
            ':' => {
                fields.push(String::new());
                continue;
            }
            '\\' => chars.next().unwrap_or('\\'),
            other => other,
        };
        if let Some(field) = fields.last_mut() {
            field.push(taken);
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOKUP: Lookup<'_> =
        Lookup { host: "localhost", port: 5432, database: "haystack", user: "ingest" };

    #[test]
    fn the_first_line_that_matches_gives_the_password() {
        let text = "# comment\nlocalhost:5433:*:ingest:no\nlocalhost:5432:other:ingest:no\n\
                    *:*:haystack:ingest:yes\n*:*:*:*:late\n";
        assert_eq!(find(text, LOOKUP).as_deref(), Some("yes"));
        assert_eq!(find("localhost:5432:haystack:else:x", LOOKUP), None);
        assert_eq!(find("localhost:5432", LOOKUP), None);
    }

    #[test]
    fn escapes_are_taken_out() {
        assert_eq!(find(r"*:*:*:*:a\:b\\c ", LOOKUP).as_deref(), Some(r"a:b\c "));
        assert_eq!(find("*:*:*:*:a:b", LOOKUP).as_deref(), Some("a:b"));
        assert_eq!(find(r"local\host:*:*:*:x", LOOKUP).as_deref(), Some("x"));
    }
}
