//! Everything that is printed.
//!
//! Guests are hostile: a hostname can contain escape sequences that rewrite a terminal. All text from a guest or a
//! daemon goes through [`Printer`], which makes control characters visible. Only the output of a program is passed
//! on unchanged, because the user asked for it.

mod active_character;
mod failure_report;
mod program;
mod yaml;

pub(crate) use program::{ProgramOutput, write_to};

use crate::cli::OutputFormat;
use crate::failure::Failure;
pub(crate) use active_character::is_active;
use comfy_table::{ContentArrangement, Table, presets};
use failure_report::FailureReport;
use minions_proto::channel::OutputStream;
use serde::Serialize;
use std::borrow::Cow;
use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, Write};

/// Printer of a command's result, in the chosen format.
#[derive(Debug)]
pub(crate) struct Printer {
    format: OutputFormat,
    /// True if tables have header lines.
    headers: bool,
}

impl Printer {
    /// `headers`: true if tables have header lines.
    pub(crate) fn new(format: OutputFormat, headers: bool) -> Self {
        Self { format, headers }
    }

    /// Prints `value` as JSON, or as the rows that `table` makes of it.
    pub(crate) fn result<T: Serialize>(
        &self,
        value: &T,
        table: impl FnOnce(&T) -> Rows,
    ) -> Result<(), Failure> {
        match self.format {
            OutputFormat::Json | OutputFormat::Yaml => self.json(value),
            OutputFormat::Table | OutputFormat::Wide | OutputFormat::Name => {
                emit(table(value).to_text(self.headers).as_bytes())
            }
        }
    }

    /// Prints `value` as YAML if that is the format, otherwise as indented JSON.
    pub(crate) fn json<T: Serialize>(&self, value: &T) -> Result<(), Failure> {
        if self.format == OutputFormat::Yaml {
            return emit(yaml::text(value)?.as_bytes());
        }
        let text =
            serde_json::to_string_pretty(value).map_err(|error| Failure::Output(error.into()))?;
        emit((harmless_json(&text) + "\n").as_bytes())
    }

    /// Prints `value` as a YAML document if that is the format, otherwise as JSON on one line.
    pub(crate) fn json_line<T: Serialize>(&self, value: &T) -> Result<(), Failure> {
        if self.format == OutputFormat::Yaml {
            return emit(format!("---\n{}", yaml::text(value)?).as_bytes());
        }
        let text = serde_json::to_string(value).map_err(|error| Failure::Output(error.into()))?;
        emit((harmless_json(&text) + "\n").as_bytes())
    }

    /// Prints a line of text to standard output.
    pub(crate) fn heading(&self, text: &str) -> Result<(), Failure> {
        emit((harmless(text) + "\n").as_bytes())
    }

    /// Prints lines of text to standard output, in any format. Keeps tabs.
    pub(crate) fn lines(&self, lines: &[String]) -> Result<(), Failure> {
        let text: String = lines.iter().map(|line| harmless_line(line) + "\n").collect();
        emit(text.as_bytes())
    }

    /// Reports whether the output format is JSON or YAML.
    pub(crate) fn is_structured(&self) -> bool {
        self.format.is_structured()
    }

    /// Reports whether tables have all columns.
    pub(crate) fn is_wide(&self) -> bool {
        self.format == OutputFormat::Wide
    }

    /// Reports whether only names are printed.
    pub(crate) fn is_names(&self) -> bool {
        self.format == OutputFormat::Name
    }

    /// Prints names, one per line.
    pub(crate) fn names<'a>(
        &self,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), Failure> {
        let text: String = names.into_iter().map(|name| harmless(name) + "\n").collect();
        emit(text.as_bytes())
    }

    /// Prints a remark to standard error.
    pub(crate) fn remark(&self, text: &str) {
        Self::remark_line(text);
    }

    /// Prints a remark to standard error, from any thread.
    pub(crate) fn remark_line(text: &str) {
        to_stderr(&harmless(text));
    }

    /// Prints remarks to a terminal in raw mode, while a program uses it: the cursor may be in any column, and a
    /// newline does not return it to the first one.
    pub(crate) fn remark_in_between(&self, lines: &[&str]) {
        let lines: Vec<String> = lines.iter().map(|line| harmless(line)).collect();
        to_stderr(&format!("\r\n{}\r", lines.join("\r\n")));
    }

    /// Prints the failure with its causes, and a hint.
    pub(crate) fn failure(&self, failure: &Failure) {
        self.failure_with(failure, None);
    }

    /// Prints the failure with its causes, and a hint: `suggestion`, or that of the failure.
    pub(crate) fn failure_with(&self, failure: &Failure, suggestion: Option<String>) {
        if matches!(failure, Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe) {
            // The reader closed the pipe on purpose, as `head` does.
            return;
        }
        let hint = suggestion.or_else(|| failure.hint().map(Cow::into_owned));
        if self.is_structured() {
            let report = FailureReport::new(failure, failure_line(failure), hint);
            let text = match self.format {
                OutputFormat::Yaml => yaml::text(&report).unwrap_or_default(),
                _ => serde_json::to_string(&report)
                    .map(|text| harmless_json(&text))
                    .unwrap_or_default(),
            };
            to_stderr(text.trim_end());
            return;
        }
        to_stderr(&format!("error: {}", failure_line(failure)));
        if let Some(hint) = hint {
            to_stderr(&format!("hint: {}", harmless(&hint)));
        }
        // The log of minionsd has more about its own failures.
        if let Some(problem) = failure.problem().filter(|problem| problem.status >= 500) {
            to_stderr(&format!("request id: {}", harmless(&problem.request_id)));
        }
    }
}

/// Returns the failure with its causes, as one line without active characters.
pub(crate) fn failure_line(failure: &Failure) -> String {
    let mut text = failure.to_string();
    let mut cause = failure.source();
    while let Some(error) = cause {
        // Writing to a string cannot fail.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    harmless(&text)
}

/// Table, or list of names with values.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Rows {
    /// Creates a table with these columns.
    pub(crate) fn with_header(header: &[&'static str]) -> Self {
        Self { header: header.to_vec(), rows: Vec::new() }
    }

    /// Creates a list of names with values.
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

    fn to_text(&self, headers: bool) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        if headers && !self.header.is_empty() {
            table.set_header(&self.header);
        }
        table.add_rows(&self.rows);
        let lines = table.lines().map(|line| format!("{}\n", line.trim_end()));
        lines.map(|line| line.strip_prefix(' ').map_or(line.clone(), String::from)).collect()
    }
}

/// Escapes a line of a program's output that is printed among lines of other programs: control characters could
/// change those. Keeps tabs.
pub(crate) fn harmless_line(line: &str) -> String {
    line.split('\t').map(harmless).collect::<Vec<_>>().join("\t")
}

/// Escapes every character that a terminal would act on or that would be invisible: C0, DEL, C1, marks that change
/// the direction of text, zero-width characters.
pub(crate) fn harmless(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut shown, character| {
        if is_active(character) {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
        shown
    })
}

/// Escapes the characters of [`harmless`] in JSON text, as `\uXXXX`. The serializer has escaped C0 already, except
/// for newlines between values; all others can occur only inside strings, where the escape means the same.
pub(crate) fn harmless_json(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut shown, character| {
        if character != '\n' && is_active(character) {
            // A character above U+FFFF becomes a surrogate pair.
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(character);
        }
        shown
    })
}

/// Writes to standard output. Does not use `std::io::stdout`, which ignores a descriptor that is not writable.
fn emit(bytes: &[u8]) -> Result<(), Failure> {
    write_to(OutputStream::Stdout, bytes).map_err(Failure::Output)
}

/// Writes a line to standard error. A failure cannot be reported anywhere, so it is ignored.
pub(crate) fn to_stderr(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_escape_sequence_is_made_visible() {
        assert_eq!(harmless("\x1b[31mred\u{9b}2J"), "\\u{1b}[31mred\\u{9b}2J");
        assert_eq!(harmless("web-1 ✓ ä"), "web-1 ✓ ä");
    }

    #[test]
    fn invisible_characters_are_made_visible() {
        let soft_hyphen_and_zero_widths =
            "\u{ad}\u{200b}\u{200c}\u{200d}\u{200e}\u{200f}\u{2060}\u{2061}\u{2064}\u{feff}";
        let tags_and_selectors = "\u{e0001}\u{e0041}\u{e007f}\u{fe0f}\u{e0100}";
        let others = "\u{61c}\u{180e}\u{34f}\u{3164}\u{115f}\u{ffa0}\u{fff9}\u{1d173}";
        for text in [soft_hyphen_and_zero_widths, tags_and_selectors, others] {
            for hidden in text.chars() {
                let shown = harmless(&format!("web{hidden}-1"));
                assert_eq!(shown, format!("web{}-1", hidden.escape_unicode()));
                let json = serde_json::to_string(&format!("web{hidden}-1")).unwrap();
                assert!(harmless_json(&json).is_ascii(), "{hidden:?}");
            }
        }
        assert_eq!(harmless_json("\"\u{e0041}\""), "\"\\udb40\\udc41\"");
        // Letters with marks, and unusual but visible characters, stay.
        for plain in ["a\u{308}", "日本", "🚀", "e\u{301}", "\u{e000}", "a\u{a0}b"] {
            assert_eq!(harmless(plain), plain);
        }
    }

    proptest! {
        #[test]
        fn escaped_text_has_no_active_characters(text in any::<String>()) {
            prop_assert!(!harmless(&text).chars().any(is_active));
        }

        #[test]
        fn escaped_json_parses_to_the_same_value(text in any::<String>()) {
            let json = serde_json::to_string(&text).unwrap();
            let shown = harmless_json(&json);
            prop_assert!(!shown.chars().any(is_active));
            prop_assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), text);
        }
    }
}
