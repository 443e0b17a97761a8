//! A page, section by section.

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, roman};
use std::io;

/// Requests that pages consist of.
const REQUESTS: [&str; 15] =
    ["TH", "SH", "PP", "TP", "IP", "RS", "RE", "nf", "fi", "br", "sp", "nh", "ad", "ie", "el"];

/// Part of a written section. In texts, words between backquotes are bold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PageBlock {
    /// Paragraph.
    Text(String),
    /// Term, and the text that describes it.
    Item(String, String),
    /// Lines that are not filled.
    Lines(Vec<String>),
}

impl PageBlock {
    /// Returns a paragraph.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    /// Returns items.
    pub fn items<'a>(items: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<Self> {
        let items = items.into_iter();
        items.map(|(term, text)| Self::Item(term.to_owned(), text.to_owned())).collect()
    }
}

/// Manual page.
#[derive(Debug, Clone)]
pub struct ManualPage {
    name: String,
    section: u8,
    roff: String,
}

impl ManualPage {
    /// Begins the page `name(section)`. `date` is that of the last change, as `2026-01-31`.
    #[must_use]
    pub fn new(name: &str, section: u8, about: &str, date: &str) -> Self {
        let mut page = Self { name: name.to_owned(), section, roff: String::new() };
        let mut roff = Roff::new();
        let source = concat!("minions ", env!("CARGO_PKG_VERSION"));
        // An empty argument must be quoted, or the next one takes its place.
        let date = if date.is_empty() { "\"\"" } else { date };
        let title = name.to_uppercase();
        roff.control("TH", [&title, &section.to_string(), date, source, "minions manual"]);
        // Words are neither hyphenated nor spread over the line, so that options and paths can be searched and copied.
        roff.control("nh", []);
        roff.control("ad", ["l"]);
        roff.control("SH", ["NAME"]);
        // Programs that index pages read this line, without fonts.
        let about = about.trim_end_matches('.').replace('`', "");
        roff.text([roman(format!("{name} - {}", plain(&about)))]);
        page.append(&roff);
        page
    }

    /// Returns the name of the page, without its section.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the section of the manual.
    #[must_use]
    pub fn section(&self) -> u8 {
        self.section
    }

    /// Returns the lines that a formatter would warn about, for tests: unknown requests, empty lines, spaces at the
    /// end, characters that not every terminal has, and quotation marks of Markdown.
    #[must_use]
    pub fn faults(&self) -> Vec<&str> {
        let is_faulty = |line: &&str| {
            let request =
                line.strip_prefix('.').map(|rest| rest.split(' ').next().unwrap_or_default());
            let is_known = request.is_none_or(|request| REQUESTS.contains(&request));
            line.is_empty()
                || line.ends_with(' ')
                || !line.is_ascii()
                || line.contains('`')
                || !is_known
        };
        self.roff.lines().filter(is_faulty).collect()
    }

    /// Returns the page.
    #[must_use]
    pub fn roff(&self) -> &str {
        &self.roff
    }

    /// Adds the section SYNOPSIS.
    #[must_use]
    pub fn with_synopsis<'a>(mut self, forms: impl IntoIterator<Item = &'a str>) -> Self {
        let mut roff = Roff::new();
        roff.control("SH", ["SYNOPSIS"]);
        for (number, form) in forms.into_iter().enumerate() {
            if number > 0 {
                roff.control("br", []);
            }
            let program = form.split_once(" [").or_else(|| form.split_once(" <"));
            let program = program.map_or(form, |(program, _)| program);
            let rest = form.strip_prefix(program).unwrap_or_default();
            roff.text([bold(plain(program)), roman(plain(rest))]);
        }
        self.append(&roff);
        self
    }

    /// Adds the options and arguments of a command, under the headings that its help has.
    ///
    /// # Errors
    ///
    /// Rendering of the options fails.
    pub fn with_options(mut self, command: &Command) -> io::Result<Self> {
        // clap describes the flag for a help that has a long and a short form.
        let command = command.clone().mut_args(|argument| match argument.get_id().as_str() {
            "help" => argument.help("Print a summary of the options"),
            _ => argument,
        });
        if command.get_arguments().all(|argument| argument.is_hide_set()) {
            return Ok(self);
        }
        let mut text = Vec::new();
        Man::new(command).render_options_section(&mut text)?;
        let text = String::from_utf8(text).map_err(io::Error::other)?;
        self.append_roff(&tidy(&with_bold(&text)));
        Ok(self)
    }

    /// Adds a section. Without blocks, nothing is added.
    #[must_use]
    pub fn with_section(mut self, heading: &str, blocks: &[PageBlock]) -> Self {
        if blocks.is_empty() {
            return self;
        }
        let mut roff = Roff::new();
        roff.control("SH", [heading]);
        for (number, block) in blocks.iter().enumerate() {
            match block {
                PageBlock::Text(text) => {
                    if number > 0 {
                        roff.control("PP", []);
                    }
                    roff.text(inlines(text));
                }
                PageBlock::Item(term, text) => {
                    roff.control("TP", []);
                    roff.text([bold(plain(term))]);
                    if !text.is_empty() {
                        roff.text(inlines(text));
                    }
                }
                PageBlock::Lines(lines) => {
                    if number > 0 {
                        roff.control("PP", []);
                    }
                    roff.control("RS", ["4"]);
                    roff.control("nf", []);
                    for line in lines {
                        roff.text([roman(plain(line))]);
                    }
                    roff.control("fi", []);
                    roff.control("RE", []);
                }
            }
        }
        self.append(&roff);
        self
    }

    fn append(&mut self, roff: &Roff) {
        self.append_roff(&roff.render());
    }

    /// Appends a document without the definitions with which each begins, except for the first.
    fn append_roff(&mut self, text: &str) {
        let preamble = Roff::new().render();
        let body = text.strip_prefix(&preamble).unwrap_or(text);
        if self.roff.is_empty() {
            self.roff.push_str(&preamble);
        }
        self.roff.push_str(body);
    }
}

/// Makes a sentence of the description of an option or an example.
#[must_use]
pub fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    let Some(first) = characters.next() else { return String::new() };
    let end = if text.ends_with(['.', '…']) { "" } else { "." };
    format!("{}{}{end}", first.to_uppercase(), characters.as_str())
}

/// Replaces line breaks around empty lines by one request for an empty line, and removes spaces at the end of lines.
fn tidy(roff: &str) -> String {
    let mut tidy: Vec<&str> = Vec::new();
    for line in roff.lines().map(str::trim_end) {
        let is_break = matches!(line, "" | ".br" | ".sp");
        match tidy.last_mut() {
            Some(last) if is_break && matches!(*last, ".br" | ".sp") => *last = ".sp",
            _ if line.is_empty() => tidy.push(".sp"),
            _ => tidy.push(line),
        }
    }
    tidy.iter().map(|line| format!("{line}\n")).collect()
}

/// Replaces characters that not every terminal and formatter has.
fn plain(text: &str) -> String {
    text.replace('…', "...").replace('’', "'").replace(['“', '”'], "\"")
}

/// Splits a text at its backquotes.
fn inlines(text: &str) -> Vec<Inline> {
    let text = plain(text);
    let parts = text.split('`').enumerate().filter(|(_, part)| !part.is_empty());
    parts.map(|(n, part)| if n % 2 == 0 { roman(part) } else { bold(part) }).collect()
}

/// Replaces pairs of backquotes in a rendered document by bold text: a formatter shows a backquote as a quotation mark.
fn with_bold(roff: &str) -> String {
    let lines = plain(roff);
    let lines = lines.lines().map(|line| {
        let parts: Vec<_> = line.split('`').collect();
        if parts.len() % 2 == 0 || line.starts_with('.') {
            return line.to_owned();
        }
        let part = |(n, part): (usize, &&str)| match n {
            0 => (*part).to_owned(),
            n if n % 2 == 1 => format!(r"\fB{part}"),
            _ => format!(r"\fR{part}"),
        };
        parts.iter().enumerate().map(part).collect()
    });
    lines.map(|line: String| line + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Arg;

    fn page() -> ManualPage {
        ManualPage::new("tool-run", 1, "Run a `thing`.", "2026-01-31")
    }

    #[test]
    fn a_page_has_a_title_a_name_and_its_sections_in_order() {
        let blocks = [
            PageBlock::text("See `tool --x` and CMD ARGS…"),
            PageBlock::Item("0".into(), "Success.".into()),
            PageBlock::Lines(vec![".x 'y'".into(), "tool  run".into()]),
        ];
        let page = page().with_synopsis(["tool run [OPTIONS] VM"]).with_section("NOTES", &blocks);
        let body = page.roff().split_once(".TH").unwrap().1;
        let expected = " TOOL-RUN 1 2026-01-31 \"minions 0.1.0\" \"minions manual\"\n.nh\n.ad l\n.SH NAME\n\
                        tool\\-run \\- Run a thing\n.SH SYNOPSIS\n\\fBtool run\\fR [OPTIONS] VM\n.SH NOTES\n\
                        See \\fBtool \\-\\-x\\fR and CMD ARGS...\n.TP\n\\fB0\\fR\nSuccess.\n.PP\n.RS 4\n.nf\n\
                        \\&.x \\*(Aqy\\*(Aq\ntool  run\n.fi\n.RE\n";
        assert_eq!(body, expected);
        assert_eq!(page.faults(), [""; 0]);
    }

    #[test]
    fn options_have_bold_words_and_no_second_preamble() {
        let file = Arg::new("file").long("file").value_name("FILE").help("A file, `-` or `x-y`: …");
        let kind = Arg::new("kind").long("kind").help("A kind").value_parser(["x", "y"]);
        let command = Command::new("run").args([file, kind]);
        let page = page().with_options(&command).unwrap();
        assert!(
            page.roff().contains("A file, \\fB\\-\\fR or \\fBx\\-y\\fR: ..."),
            "{}",
            page.roff()
        );
        assert_eq!(page.roff().matches(".ie").count(), 1);
        assert_eq!(page.faults(), [""; 0]);
        let command = Command::new("x").disable_help_flag(true);
        let empty = ManualPage::new("x", 1, "y", "").with_options(&command).unwrap();
        assert!(!empty.roff().contains("OPTIONS"));
        assert!(empty.roff().contains(".TH X 1 \"\" "));
    }
}
