//! A command line that is being typed, for completion: it may be incomplete and invalid.

use super::Cli;
use super::option_words::{OptionWord, is_option};
use super::program_words::program;
use clap::{Command, Parser};
use std::ffi::OsString;

/// Options that select a daemon or an agent, and the credentials.
const CONNECTION: [&str; 7] =
    ["host", "context", "token_file", "ca_file", "cert_file", "socket", "port"];

/// Words before the one that is being typed.
#[derive(Debug)]
pub(crate) struct PartialLine {
    /// Connection options, as a complete command line would have them. Its output format is JSON, so that remarks on
    /// the configuration are not printed.
    pub(crate) cli: Cli,
    /// Names of the command and of the command below it: `fs`, `ls`.
    pub(crate) command: Vec<String>,
    /// Words that are neither commands nor options.
    pub(crate) arguments: Vec<String>,
    /// Ids of the options, with their values.
    pub(crate) options: Vec<(String, Option<String>)>,
    /// True if the word that is being typed belongs to a program, not to minionsctl.
    pub(crate) is_of_program: bool,
}

impl PartialLine {
    /// Parses the words. The first is the program's name of minionsctl, the last is being typed. Returns `None` if a
    /// word is not UTF-8, or if a connection option has an invalid value.
    pub(crate) fn parse(grammar: &Command, words: &[OsString]) -> Option<Self> {
        let (_, before) = words.split_last()?;
        let first_of_program = program(grammar, words);
        let before = match first_of_program {
            Some(first) => before.get(..first).unwrap_or(before),
            None => before,
        };
        let mut command = grammar;
        let mut names = Vec::new();
        let mut arguments = Vec::new();
        let mut options = Vec::new();
        let mut connection = vec!["minionsctl".to_owned(), "--output=json".to_owned()];
        let mut has_dashes = false;
        let mut at = 1;
        while let Some(word) = before.get(at) {
            at += 1;
            let text = word.to_str()?;
            if word == "--" {
                has_dashes = true;
                break;
            }
            if !is_option(word) {
                match command.find_subcommand(text).filter(|_| arguments.is_empty()) {
                    Some(found) => {
                        command = found;
                        names.push(found.get_name().to_owned());
                    }
                    None => arguments.push(text.to_owned()),
                }
                continue;
            }
            let Some(OptionWord { ids, takes_next, attached }) = OptionWord::parse(command, word)
            else {
                continue;
            };
            let value = match before.get(at).filter(|_| takes_next) {
                Some(next) => Some(next.to_str()?.to_owned()),
                None => attached,
            };
            at += usize::from(takes_next);
            let Some((last, flags)) = ids.split_last() else { continue };
            if let Some(value) = value.as_ref().filter(|_| CONNECTION.contains(&last.as_str())) {
                connection.push(format!("--{}={value}", last.replace('_', "-")));
            }
            options.extend(flags.iter().map(|flag| (flag.clone(), None)));
            options.push((last.clone(), value));
        }
        let is_of_program =
            has_dashes || first_of_program.is_some_and(|first| first + 1 < words.len());
        connection.push("whoami".to_owned());
        let cli = Cli::try_parse_from(connection).ok()?;
        Some(Self { cli, command: names, arguments, options, is_of_program })
    }

    /// Returns the value of the last option with this id.
    pub(crate) fn value(&self, id: &str) -> Option<&str> {
        let found = self.options.iter().rfind(|(option, _)| option == id);
        found.and_then(|(_, value)| value.as_deref())
    }

    /// Reports whether the option is given.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.options.iter().any(|(option, _)| option == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parsed(line: &str) -> Option<PartialLine> {
        let mut grammar = Cli::command();
        grammar.build();
        let words = ["minionsctl"].into_iter().chain(line.split(' ')).map(OsString::from);
        PartialLine::parse(&grammar, &words.collect::<Vec<_>>())
    }

    #[test]
    fn the_words_before_the_typed_one_are_sorted() {
        let line = parsed("--host /x fs -u eve ls --token-file=c a b").unwrap();
        assert_eq!(line.command, ["fs", "ls"]);
        assert_eq!(line.arguments, ["a"]);
        assert_eq!(line.value("user"), Some("eve"));
        assert!(line.has("host") && !line.has("socket"));
        assert!(line.cli.output.is_structured());
    }

    #[test]
    fn connection_options_apply_wherever_they_are() {
        for text in
            ["--host /x get ", "get --host=/x ", "get web-1 --host /x ", "-o yaml --host /x get "]
        {
            assert_eq!(parsed(text).unwrap().cli.host.as_deref(), Some("/x"), "{text}");
        }
        // The value that is being typed, and one of a program, do not count.
        for text in ["get --host /x", "exec web-1 curl --host /x "] {
            assert_eq!(parsed(text).unwrap().cli.host, None, "{text}");
        }
        assert!(parsed("--port x get ").is_none());
    }

    #[test]
    fn words_of_a_program_are_recognized() {
        for (text, is_of_program) in [
            ("exec web-1 ls -", true),
            ("exec web-1 -- ", true),
            ("exec --on web-* uname -", true),
            ("quiesce web-1 -- ./snap", true),
            ("exec web-1 ", false),
            ("exec web-1 -", false),
            ("exec web-1 l", false),
            ("logs web-1 x -", false),
        ] {
            assert_eq!(parsed(text).unwrap().is_of_program, is_of_program, "{text}");
        }
    }
}
