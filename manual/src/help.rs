//! Parts of a command's help.
//!
//! The help of a command ends with paragraphs: one that begins with `Examples:` and has a command and its purpose on
//! each line, one that begins with `Exit code`, and others. In a page, each has its own section.

use crate::page::PageBlock;
use clap::Command;

/// Command with its purpose, which may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExampleLine {
    /// Command, as typed in a shell.
    pub command: String,
    /// Purpose of the command.
    pub purpose: String,
}

/// Paragraphs after the options in a command's help.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HelpParts {
    /// Examples.
    pub examples: Vec<ExampleLine>,
    /// Paragraphs about the exit code.
    pub exit_status: Vec<PageBlock>,
    /// Other paragraphs.
    pub notes: Vec<PageBlock>,
}

impl HelpParts {
    /// Returns the parts of the help of `command`.
    #[must_use]
    pub fn of(command: &Command) -> Self {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        Self::parse(&help)
    }

    fn parse(help: &str) -> Self {
        let mut parts = Self::default();
        for paragraph in help.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty()) {
            let lines: Vec<_> = paragraph.lines().collect();
            if lines[0] == "Examples:" {
                parts.examples.extend(lines[1..].iter().map(|line| example(line)));
            } else if paragraph.starts_with("Exit code") {
                parts.exit_status.push(PageBlock::Text(lines.join(" ")));
            } else {
                parts.notes.extend(blocks(&lines));
            }
        }
        parts
    }
}

/// Splits a line of examples: at least two spaces are between the command and its purpose.
fn example(line: &str) -> ExampleLine {
    let line = line.trim();
    let (command, purpose) = line.split_once("  ").unwrap_or((line, ""));
    ExampleLine { command: command.to_owned(), purpose: purpose.trim().to_owned() }
}

/// Returns the text of a paragraph, and its indented lines, which are commands.
fn blocks(lines: &[&str]) -> Vec<PageBlock> {
    let (code, text): (Vec<&str>, Vec<&str>) =
        lines.iter().partition(|line| line.starts_with("  "));
    let mut blocks = Vec::new();
    if !text.is_empty() {
        blocks.push(PageBlock::Text(text.join(" ")));
    }
    if !code.is_empty() {
        blocks.push(PageBlock::Lines(code.iter().map(|line| line.trim().to_owned()).collect()));
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paragraphs_of_a_help_are_sorted() {
        let help = "Examples:\n  tool run a | b      from a pipe\n  tool run\n\nA note\nof two lines.\n\n\
                    For all:\n  tool x > /y\n\nExit code with CMD: that\nof CMD.";
        let parts = HelpParts::parse(help);
        let example = |command: &str, purpose: &str| ExampleLine {
            command: command.into(),
            purpose: purpose.into(),
        };
        assert_eq!(
            parts.examples,
            [example("tool run a | b", "from a pipe"), example("tool run", "")]
        );
        assert_eq!(parts.exit_status, [PageBlock::text("Exit code with CMD: that of CMD.")]);
        let lines = PageBlock::Lines(vec!["tool x > /y".into()]);
        let notes = [PageBlock::text("A note of two lines."), PageBlock::text("For all:"), lines];
        assert_eq!(parts.notes, notes);
        assert_eq!(HelpParts::of(&Command::new("x")), HelpParts::default());
    }
}
