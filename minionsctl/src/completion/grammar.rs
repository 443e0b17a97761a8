//! The command line grammar, in which each argument has the source of its values.

use super::sources::{CompletionSources, ValueSource};
use crate::cli::Cli;
use clap::{Command, CommandFactory};
use clap_complete::engine::ArgValueCompleter;
use std::ffi::OsStr;
use std::sync::Arc;

/// Returns the grammar.
pub(super) fn with_sources(sources: &Arc<CompletionSources>) -> Command {
    attach(Cli::command(), "", sources)
}

/// Attaches the sources to a command and the commands below it. `path` is the names of the commands above and its own.
fn attach(command: Command, path: &str, sources: &Arc<CompletionSources>) -> Command {
    let with_arguments = command.mut_args(|arg| match source(path, arg.get_id().as_str()) {
        None => arg,
        Some(source) => {
            let sources = Arc::clone(sources);
            arg.add(ArgValueCompleter::new(move |typed: &OsStr| {
                typed.to_str().map(|typed| sources.values(source, typed)).unwrap_or_default()
            }))
        }
    });
    with_arguments.mut_subcommands(|below| {
        let path = format!("{path} {}", below.get_name());
        attach(below, path.trim_start(), sources)
    })
}

/// Returns the source of the values of an argument. Arguments without one have those of clap: the values of an
/// enumeration, or files of this host.
fn source(path: &str, argument: &str) -> Option<ValueSource> {
    Some(match (path, argument) {
        ("config", "vm") => ValueSource::ConfiguredVm,
        (_, "vm" | "names" | "on" | "vm_or_id") => ValueSource::Vm,
        ("wait", "more") => ValueSource::WaitWord,
        ("ssh", "destination") => ValueSource::SshDestination,
        ("exec" | "logs" | "attach" | "kill", "id") => ValueSource::Program,
        (_, "selector") => ValueSource::Label,
        ("cp", "locations") => ValueSource::CopyLocation,
        (
            "fs ls" | "fs cat" | "fs stat" | "fs mkdir" | "fs mv" | "fs rm",
            "file" | "files" | "to",
        ) => ValueSource::GuestFile,
        (_, "context") | ("context use", "name") => ValueSource::Context { with_default: true },
        ("context rm", "name") => ValueSource::Context { with_default: false },
        (_, "pool") => ValueSource::Pool,
        ("pool release", "address") => ValueSource::LeaseAddress,
        (_, "signal") => ValueSource::Fixed(&SIGNALS),
        ("ls", "state") => ValueSource::Fixed(&STATES),
        (_, "verify") => ValueSource::Fixed(&CHECKS),
        _ => return None,
    })
}

/// Signals that users send, as kill(1) lists them first.
const SIGNALS: [&str; 12] =
    ["TERM", "INT", "HUP", "KILL", "QUIT", "USR1", "USR2", "STOP", "CONT", "TSTP", "WINCH", "ABRT"];

/// States of `ls --state`.
const STATES: [&str; 4] = ["connecting", "ready", "unreachable", "stale"];

/// Conditions of `configure-network --verify`.
const CHECKS: [&str; 6] = ["link", "addresses", "route", "gateway", "dns", "none"];

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Arg;
    use minions_api::vm::VmState;
    use minions_proto::message::Signal;

    /// Calls `visit` with each argument of each command.
    fn for_each(command: &Command, path: &str, visit: &mut impl FnMut(&str, &Arg)) {
        for argument in command.get_arguments() {
            visit(path, argument);
        }
        for below in command.get_subcommands() {
            for_each(below, format!("{path} {}", below.get_name()).trim_start(), visit);
        }
    }

    #[test]
    fn every_argument_for_a_name_that_the_daemon_knows_has_a_source() {
        let mut missing = Vec::new();
        for_each(&Cli::command(), "", &mut |path, argument| {
            let names = argument.get_value_names().unwrap_or_default();
            let names: Vec<_> = names.iter().map(|name| name.as_str()).collect();
            let id = argument.get_id().as_str();
            let is_known = names.iter().any(|name| {
                matches!(*name, "VM" | "VM:PATH" | "[USER@]VM" | "LABELS" | "SRC… DST" | "POOL")
            });
            if is_known && source(path, id).is_none() {
                missing.push(format!("{path}: {id}"));
            }
        });
        assert_eq!(missing, Vec::<String>::new());
    }

    #[test]
    fn fixed_values_are_accepted() {
        assert!(SIGNALS.iter().all(|name| name.parse::<Signal>().is_ok()));
        let known = [VmState::Connecting, VmState::Ready, VmState::Unreachable, VmState::Stale];
        assert_eq!(known.map(|state| state.as_str()), STATES);
    }
}
