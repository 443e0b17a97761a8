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
use minions_proto::channel::OutputStream;
use serde::Serialize;
use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, Write};
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

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

/// The text with everything made visible that could do something to a terminal, or that nobody would see:
/// C0, DEL, C1, marks that change a line's direction, zero-width characters.
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
            // One above U+FFFF is two of them.
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(character);
        }
        shown
    })
}

/// Whether a terminal would obey the character, or show nothing for it: two names that differ in it alone would
/// look the same.
fn is_active(character: char) -> bool {
    if character.is_ascii() {
        return character.is_ascii_control();
    }
    let category = character.general_category();
    let formats = matches!(
        category,
        GeneralCategory::Control
            | GeneralCategory::Format
            | GeneralCategory::LineSeparator
            | GeneralCategory::ParagraphSeparator
    );
    formats || is_ignorable(character)
}

/// `Default_Ignorable_Code_Point` as far as it isn't `Format`: the grapheme joiner, Hangul fillers, Khmer vowels
/// without a shape, variation selectors, and what is reserved for more of the kind.
fn is_ignorable(character: char) -> bool {
    matches!(
        character,
        '\u{34f}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{2065}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fff8}' | '\u{e0000}'..='\u{e0fff}'
    )
}

/// The standard library's standard output takes a descriptor that cannot be written for one that took all.
fn emit(bytes: &[u8]) -> Result<(), Failure> {
    write_to(OutputStream::Stdout, bytes).map_err(Failure::Output)
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

    #[test]
    fn characters_that_nobody_would_see_are_shown() {
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
        // Letters with marks, and what is merely unusual, stay.
        for plain in ["a\u{308}", "日本", "🚀", "e\u{301}", "\u{e000}", "a\u{a0}b"] {
            assert_eq!(harmless(plain), plain);
        }
    }

    proptest! {
        #[test]
        fn nothing_active_is_left(text in any::<String>()) {
            prop_assert!(!harmless(&text).chars().any(is_active));
        }

        #[test]
        fn harmless_json_means_the_same(text in any::<String>()) {
            let json = serde_json::to_string(&text).unwrap();
            let shown = harmless_json(&json);
            prop_assert!(!shown.chars().any(is_active));
            prop_assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), text);
        }
    }
}
