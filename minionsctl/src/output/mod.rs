//! Everything that is printed.
//!
//! Guests are hostile: a hostname can hold the escape sequences that rewrite a terminal. Whatever a
//! guest or a daemon said goes through [`Printer`], which makes control characters visible. Only a
//! program's own output is passed on as it is: that is what was asked for.

mod program;

pub(crate) use program::{ProgramOutput, write_to};

use crate::cli::Format;
use crate::failure::Failure;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, Write};

/// Prints one command's result.
#[derive(Debug)]
pub(crate) struct Printer {
    format: Format,
}

impl Printer {
    pub(crate) fn new(format: Format) -> Self {
        Self { format }
    }

    /// `value` as JSON, or what `table` makes of it.
    pub(crate) fn result<T: Serialize>(
        &self,
        value: &T,
        table: impl FnOnce(&T) -> Rows,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Json => Self::json(value),
            Format::Table => emit(table(value).to_text().as_bytes()),
        }
    }

    /// `value` as JSON, whatever the format.
    pub(crate) fn json<T: Serialize>(value: &T) -> Result<(), Failure> {
        let text =
            serde_json::to_string_pretty(value).map_err(|error| Failure::Output(error.into()))?;
        emit((harmless_json(&text) + "\n").as_bytes())
    }

    /// `value` as JSON on one line.
    pub(crate) fn json_line<T: Serialize>(value: &T) -> Result<(), Failure> {
        let text = serde_json::to_string(value).map_err(|error| Failure::Output(error.into()))?;
        emit((harmless_json(&text) + "\n").as_bytes())
    }

    /// A line above results.
    pub(crate) fn heading(&self, text: &str) -> Result<(), Failure> {
        emit((harmless(text) + "\n").as_bytes())
    }

    /// Whether programs read this.
    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// A remark that is no result.
    pub(crate) fn remark(&self, text: &str) {
        say(&harmless(text));
    }

    /// The same, lines of it, to a terminal that is a program's at the moment: the cursor may be
    /// anywhere, and a line's end doesn't bring it back to the beginning.
    pub(crate) fn remark_in_between(&self, lines: &[&str]) {
        let lines: Vec<String> = lines.iter().map(|line| harmless(line)).collect();
        say(&format!("\r\n{}\r", lines.join("\r\n")));
    }

    /// Why there is no result, what lies behind it, and what to do next.
    pub(crate) fn failure(&self, failure: &Failure) {
        if matches!(failure, Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe) {
            // The reader has seen enough.
            return;
        }
        let mut text = format!("error: {failure}");
        let mut cause = failure.source();
        while let Some(error) = cause {
            let _ = write!(text, ": {error}");
            cause = error.source();
        }
        say(&harmless(&text));
        if let Some(hint) = failure.hint() {
            say(&format!("hint: {hint}"));
        }
    }
}

/// A table, or a list of names with values.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Rows {
    /// A table with these columns.
    pub(crate) fn with_header(header: &[&'static str]) -> Self {
        Self { header: header.to_vec(), rows: Vec::new() }
    }

    /// A list of names with values.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a row.
    pub(crate) fn row(mut self, cells: impl IntoIterator<Item = String>) -> Self {
        self.rows.push(cells.into_iter().map(|cell| harmless(&cell)).collect());
        self
    }

    /// Adds a name with its value.
    pub(crate) fn value(self, name: &str, value: impl ToString) -> Self {
        self.row([name.to_owned(), value.to_string()])
    }

    /// Adds a name with its value, if it has one.
    pub(crate) fn optional(self, name: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.value(name, value),
            None => self,
        }
    }

    fn to_text(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        if !self.header.is_empty() {
            table.set_header(&self.header);
        }
        table.add_rows(&self.rows);
        let lines = table.lines().map(|line| format!("{}\n", line.trim_end()));
        lines.map(|line| line.strip_prefix(' ').map_or(line.clone(), String::from)).collect()
    }
}

/// A line of a program's output where it stands among others': what it could do to a terminal, it
/// could do to theirs. Tabs stay.
pub(crate) fn harmless_line(line: &str) -> String {
    line.split('\t').map(harmless).collect::<Vec<_>>().join("\t")
}

/// The text with everything made visible that could do something to a terminal: C0, DEL, C1, and
/// the marks that change a line's direction.
fn harmless(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut shown, character| {
        if is_active(character) {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
        shown
    })
}

/// The same for JSON text. C0 is escaped there already, but for the newlines between its lines; the
/// rest can only stand inside strings, where `\uXXXX` means the same.
fn harmless_json(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut shown, character| {
        if character != '\n' && is_active(character) {
            let _ = write!(shown, "\\u{:04x}", u32::from(character));
        } else {
            shown.push(character);
        }
        shown
    })
}

fn is_active(character: char) -> bool {
    let bidirectional = matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let separator = matches!(character, '\u{2028}' | '\u{2029}');
    character.is_control() || bidirectional || separator
}

fn emit(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(Failure::Output)
}

/// Standard error; if that is gone too, there is nobody left to tell.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_escape_sequence_is_shown_and_not_obeyed() {
        assert_eq!(harmless("\x1b[31mred\u{9b}2J"), "\\u{1b}[31mred\\u{9b}2J");
        assert_eq!(harmless("web-1 ✓ ä"), "web-1 ✓ ä");
    }

    proptest! {
        #[test]
        fn nothing_active_is_left(text in "\\PC*|.*") {
            prop_assert!(!harmless(&text).chars().any(is_active));
        }

        #[test]
        fn harmless_json_means_the_same(text in ".*") {
            let json = serde_json::to_string(&text).unwrap();
            let shown = harmless_json(&json);
            prop_assert!(!shown.chars().any(is_active));
            prop_assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), text);
        }
    }
}
