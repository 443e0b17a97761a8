//! Reports of command lines that cannot be parsed: help, the version, and usage errors.

use crate::cli::Cli;
use crate::exit::ExitStatus;
use crate::output::{harmless_json, to_stderr};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Error};
use std::env;
use std::ffi::OsString;
use std::process::ExitCode;

/// Commands of other tools, and what minionsctl has in place of them.
const OTHER_TOOLS: &[(&str, &str)] = &[
    (
        "rm",
        "`minionsctl kill VM ID --remove` removes a program, `minionsctl fs rm VM:/PATH` a file; minionsctl does \
            not create or remove VMs",
    ),
    (
        "run",
        "`minionsctl exec VM CMD ARGS…` runs a program; minionsctl does not create or remove VMs",
    ),
    ("create", "minionsctl does not create or remove VMs: that is the work of the VMM"),
    ("delete", "minionsctl does not create or remove VMs: that is the work of the VMM"),
    ("start", "minionsctl does not start VMs: that is the work of the VMM"),
    ("stop", "`minionsctl poweroff VM` powers the guest off"),
    ("shutdown", "`minionsctl poweroff VM` powers the guest off"),
    ("restart", "`minionsctl reboot VM` reboots the guest"),
    ("push", "`minionsctl cp SRC VM:/PATH` copies into the guest"),
    ("pull", "`minionsctl cp VM:/PATH DST` copies out of the guest"),
    (
        "top",
        "`minionsctl status VM` prints memory, processors and disks; `minionsctl ps VM` lists programs",
    ),
    ("stats", "`minionsctl status VM` prints memory, processors and disks"),
    (
        "info",
        "`minionsctl version` and `minionsctl whoami` describe the connection; `minionsctl get VM` a VM",
    ),
    ("console", "`minionsctl shell VM` runs a login shell"),
    ("use", "`minionsctl context use NAME` selects a context"),
    (
        "login",
        "`minionsctl context add NAME --host URL --token-file FILE` stores an address and its token",
    ),
];

/// Prints help, the version or a usage error, and returns the exit code: 0 for help and version, otherwise 2,
/// as usual. Usage errors of commands with the exit code of a program are 125 instead: 2 could be that of the program.
pub(crate) fn report(error: &Error) -> ExitCode {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand && is_bare() {
        // As with other tools: `minionsctl | less` shows the help.
        let _ = Cli::command().print_help();
        return ExitStatus::Success.into();
    }
    let is_json = is_structured(env::args_os());
    if error.use_stderr() && is_json {
        let message = error.to_string();
        let report =
            serde_json::json!({ "status": "error", "code": "invalid_usage", "message": message });
        to_stderr(&harmless_json(&report.to_string()));
    } else {
        // A closed standard error leaves no place to report this.
        let _ = error.print();
        if let Some(advice) = advice(error) {
            to_stderr(&format!("\nhint: {advice}"));
        }
    }
    if !error.use_stderr() {
        return ExitStatus::Success.into();
    }
    match Cli::named_command(env::args_os()).as_deref() {
        Some("exec" | "attach" | "quiesce" | "shell" | "ssh" | "ssh-proxy") => {
            ExitStatus::Ours.into()
        }
        _ => ExitCode::from(2),
    }
}

/// Reports whether the command line is only the program's name.
fn is_bare() -> bool {
    env::args_os().len() <= 1
}

/// Reports whether the words contain `-o json`, or `-o yaml`, whose failures are JSON as well.
fn is_structured(args: impl IntoIterator<Item = OsString>) -> bool {
    let words: Vec<_> = args.into_iter().take_while(|word| word != "--").collect();
    let is_option = |word: &OsString| word == "-o" || word == "--output";
    let is_format = |word: &str| word == "json" || word == "yaml";
    let joined = |word: &OsString| {
        let word = word.to_str()?;
        ["-o=", "-o", "--output="]
            .iter()
            .find_map(|option| word.strip_prefix(option).map(is_format))
    };
    words.iter().any(|word| joined(word) == Some(true))
        || words
            .windows(2)
            .any(|pair| is_option(&pair[0]) && pair[1].to_str().is_some_and(is_format))
}

/// Returns the advice on a command of another tool.
fn advice(error: &Error) -> Option<&'static str> {
    match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(word)) => {
            OTHER_TOOLS.iter().find(|(other, _)| other == word).map(|(_, advice)| *advice)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_command_of_another_tool_is_one_of_ours() {
        let grammar = Cli::command();
        for (word, _) in OTHER_TOOLS {
            assert!(grammar.find_subcommand(word).is_none(), "{word}");
        }
    }

    #[test]
    fn the_output_format_is_found_among_invalid_words() {
        let wants = |line: &str| is_structured(line.split(' ').map(Into::into));
        assert!(
            wants("m -o yaml x")
                && wants("m -o=yaml")
                && wants("m -o json bogus")
                && wants("m bogus -ojson")
                && wants("m --output=json")
        );
        assert!(!wants("m exec x -- -o json") && !wants("m -o table json"));
    }
}
