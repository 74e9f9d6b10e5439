//! Lines for the person in front of `up`, also while the live line is on the screen.

use std::io::{IsTerminal, Write};

/// Prints one line.
pub(crate) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let clear = if out.is_terminal() { "\r\x1b[2K" } else { "" };
    // A closed pipe is not worth stopping for.
    let _ = writeln!(out, "{clear}haystack: {text}");
    let _ = out.flush();
}

/// Prints lines as they are.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}

/// Rows of text, columns as wide as they need to be.
pub(crate) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}
