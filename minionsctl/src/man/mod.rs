//! Manual pages: minionsctl(1), and one page for each command, also for those below another one: `minionsctl-fs-ls(1)`.
//! `cargo xtask man` writes them with a build that has the feature `man`.
//!
//! # Layout
//!
//! * The name, the synopsis and the options come from the grammar, and so do examples and notes of the help.
//! * [`examples`]: examples of commands whose help has none. [`details`]: descriptions. [`places`]: files, variables
//!   and exit codes. [`related`]: pages that a page refers to. `answer`: the request to write the pages.

#[cfg(feature = "man")]
mod answer;
mod details;
mod examples;
mod places;
mod related;

#[cfg(feature = "man")]
pub(crate) use answer::answer;

use crate::cli::Cli;
use clap::{Command, CommandFactory};
use manual::help::{ExampleLine, HelpParts};
use manual::{ManualPage, PageBlock, sentence};
use std::io;

/// Returns all pages.
fn pages(date: &str) -> io::Result<Vec<ManualPage>> {
    commands().iter().map(|(path, command)| page(path, command, date)).collect()
}

/// Returns minionsctl and its commands, with their paths: ``, `fs`, `fs ls`.
fn commands() -> Vec<(String, Command)> {
    let mut grammar = Cli::command().disable_help_subcommand(true);
    grammar.build();
    let mut commands = Vec::new();
    add(&grammar, "", &mut commands);
    commands
}

fn add(command: &Command, path: &str, commands: &mut Vec<(String, Command)>) {
    commands.push((path.to_owned(), command.clone()));
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        add(below, format!("{path} {}", below.get_name()).trim_start(), commands);
    }
}

/// Returns the name of the page of a command.
fn page_name(path: &str) -> String {
    if path.is_empty() {
        "minionsctl".into()
    } else {
        format!("minionsctl-{}", path.replace(' ', "-"))
    }
}

fn page(path: &str, command: &Command, date: &str) -> io::Result<ManualPage> {
    let help = HelpParts::of(command);
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let usage = usage(command);
    let mut description = vec![PageBlock::Text(sentence(&about))];
    description.extend(details::of(path).iter().map(|text| PageBlock::text(text)));
    description.extend(help.notes.iter().cloned());
    let aliases: Vec<_> = command.get_visible_aliases().map(|alias| format!("`{alias}`")).collect();
    if !aliases.is_empty() {
        description.push(PageBlock::Text(format!("Also known as {}.", aliases.join(", "))));
    }
    // The table has more than the summary of the help.
    let has_table = matches!(path, "exec" | "attach");
    let mut exit_status = if has_table { Vec::new() } else { help.exit_status.clone() };
    exit_status.extend(PageBlock::items(places::exit_codes(path)));
    // The options of all commands are described once.
    let own = match path {
        "" => command.clone(),
        _ => command.clone().mut_args(|arg| {
            let is_global = arg.is_global_set() && arg.get_help_heading() == Some("Global options");
            let is_hidden = is_global || arg.is_hide_set();
            arg.hide(is_hidden)
        }),
    };
    let global = match path {
        "" => Vec::new(),
        _ => vec![PageBlock::text(
            "`--host`, `--context`, `--token-file`, `--socket`, `--output`, `--timeout` and the other options of all \
             commands are described in minionsctl(1).",
        )],
    };
    let page = ManualPage::new(&page_name(path), 1, &about, date)
        .with_synopsis(usage.iter().map(String::as_str))
        .with_section("DESCRIPTION", &description)
        .with_options(&own)?
        .with_section("GLOBAL OPTIONS", &global)
        .with_section("COMMANDS", &commands_below(path, command))
        .with_section("EXAMPLES", &example_blocks(path, &help))
        .with_section("EXIT STATUS", &exit_status)
        .with_section("ENVIRONMENT", &PageBlock::items(places::variables(path)))
        .with_section("FILES", &PageBlock::items(places::files(path)))
        .with_section("SEE ALSO", &[PageBlock::Text(related::of(path).join(", "))]);
    Ok(page)
}

/// Returns the forms of the usage.
fn usage(command: &Command) -> Vec<String> {
    let text = command.clone().render_usage().to_string();
    let text = text.strip_prefix("Usage: ").unwrap_or(&text);
    text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
}

fn commands_below(path: &str, command: &Command) -> Vec<PageBlock> {
    let below = command.get_subcommands().filter(|below| !below.is_hide_set());
    let item = |below: &Command| {
        let name = page_name(format!("{path} {}", below.get_name()).trim_start());
        let about = below.get_about().map(ToString::to_string).unwrap_or_default();
        PageBlock::Item(format!("{name}(1)"), sentence(&about))
    };
    below.map(item).collect()
}

/// Returns the examples of the help and of [`examples`].
fn lines(path: &str, help: &HelpParts) -> Vec<ExampleLine> {
    let more = examples::of(path).iter().map(|(command, purpose)| ExampleLine {
        command: (*command).to_owned(),
        purpose: (*purpose).to_owned(),
    });
    help.examples.iter().cloned().chain(more).collect()
}

fn example_blocks(path: &str, help: &HelpParts) -> Vec<PageBlock> {
    let block = |line: ExampleLine| PageBlock::Item(line.command, sentence(&line.purpose));
    lines(path, help).into_iter().map(block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use manual::example::invocations;
    use std::collections::BTreeSet;
    use std::ffi::OsString;

    #[test]
    fn every_command_has_a_page_with_all_sections() {
        let pages = pages("2026-01-31").unwrap();
        let names: BTreeSet<_> = pages.iter().map(ManualPage::name).collect();
        assert_eq!(names.len(), pages.len());
        for name in ["minionsctl", "minionsctl-exec", "minionsctl-fs-ls", "minionsctl-completion"] {
            assert!(names.contains(name), "{name}");
        }
        for page in &pages {
            let (name, roff) = (page.name(), page.roff());
            for section in [
                "NAME",
                "SYNOPSIS",
                "DESCRIPTION",
                "EXAMPLES",
                "\"EXIT STATUS\"",
                "ENVIRONMENT",
                "FILES",
                "\"SEE ALSO\"",
            ] {
                assert!(roff.contains(&format!("\n.SH {section}\n")), "{name} lacks {section}");
            }
            assert_eq!(page.faults(), [""; 0], "{name}");
        }
    }

    #[test]
    fn every_example_parses_and_is_of_its_command() {
        for (path, command) in commands() {
            let lines = lines(&path, &HelpParts::of(&command));
            assert!(!lines.is_empty(), "{path:?} has no example");
            let mut is_shown = false;
            for line in lines {
                let found = invocations(&line.command, "minionsctl");
                is_shown |= !found.is_empty();
                for words in found {
                    let words: Vec<_> = words.iter().map(OsString::from).collect();
                    if let Err(error) = Cli::parse_words(words) {
                        panic!("{path:?}: {:?}: {error}", line.command);
                    }
                }
                let first = path.split(' ').next().unwrap_or_default();
                let is_of_ssh = path == "ssh-config" || path == "ssh-proxy";
                assert!(line.command.contains(first) || is_of_ssh, "{path:?}: {:?}", line.command);
            }
            assert!(is_shown, "no example of {path:?} runs minionsctl");
        }
    }

    #[test]
    fn every_variable_and_every_reference_exists() {
        let commands = commands();
        let known: BTreeSet<_> =
            commands.iter().map(|(path, _)| format!("{}(1)", page_name(path))).collect();
        let listed: BTreeSet<_> = places::variables("").into_iter().map(|(name, _)| name).collect();
        let mut of_help = BTreeSet::new();
        for (path, command) in &commands {
            for argument in command.get_arguments() {
                let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
                let named = help.split("[env: ").skip(1).filter_map(|rest| rest.split(']').next());
                of_help.extend(named.map(str::to_owned));
                of_help.extend(argument.get_env().map(|name| name.to_str().unwrap().to_owned()));
            }
            for page in related::of(path) {
                let is_ours = page.starts_with("minionsctl");
                assert!(!is_ours || known.contains(&page), "{path:?} refers to {page}");
                assert_ne!(page, format!("{}(1)", page_name(path)));
            }
        }
        assert!(of_help.len() >= 6, "{of_help:?}");
        for name in &of_help {
            assert!(listed.contains(name.as_str()), "{name} is not listed");
        }
    }

    #[test]
    fn no_table_has_a_command_that_does_not_exist() {
        let paths: BTreeSet<_> = commands().into_iter().map(|(path, _)| path).collect();
        for path in examples::paths().chain(details::paths()) {
            assert!(paths.contains(path), "{path}");
        }
    }
}
