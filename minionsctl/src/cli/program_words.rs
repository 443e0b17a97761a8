//! Words of a program on the command line without `--`: `exec VM CMD ARGS…`, `ssh VM CMD ARGS…`.
//!
//! As with `docker exec`, the first word after the VM is the program, and everything after it belongs to the program.
//! Options of minionsctl can be before the VM, and between the VM and the program. With an option that selects the VMs
//! (`--on`, `--all`, `-l`, `--socket`), there is no VM, and the first word is the program.

use super::option_words::{OptionWord, is_option};
use clap::Command;
use std::ffi::OsString;

/// Commands that run a program in a guest.
const COMMANDS: [&str; 2] = ["exec", "ssh"];

/// Options that select VMs in place of the argument VM.
const SELECTING: [&str; 4] = ["on", "all", "selector", "socket"];

/// Inserts `--` before the program, unless it is there, so that clap parses no word of the program. `args` begins with
/// the program's name of minionsctl. Returns `args` unchanged if no program is found, or if the words are invalid.
pub(super) fn with_dashes(grammar: &Command, mut args: Vec<OsString>) -> Vec<OsString> {
    if let Some(at) = program(grammar, &args) {
        args.insert(at, "--".into());
    }
    args
}

/// Returns the index of the program's first word, if no `--` precedes it.
pub(super) fn program(grammar: &Command, args: &[OsString]) -> Option<usize> {
    let mut command = grammar;
    let mut has_command = false;
    let mut has_vm = false;
    let mut is_selected = false;
    let mut at = 1;
    while let Some(word) = args.get(at).filter(|word| *word != "--") {
        if is_option(word) {
            let option = OptionWord::parse(command, word)?;
            is_selected |= option.ids.iter().any(|id| SELECTING.contains(&id.as_str()));
            at += usize::from(option.takes_next);
        } else if !has_command {
            command = grammar.find_subcommand(word)?;
            has_command = true;
            if !COMMANDS.contains(&command.get_name()) {
                return None;
            }
        } else if has_vm || is_selected {
            // A single word before `--` is a VM, which contradicts the selection: a usage error, not a program.
            let is_vm = !has_vm && args.get(at + 1).is_some_and(|next| next == "--");
            return (!is_vm).then_some(at);
        } else {
            has_vm = true;
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::Cli;
    use super::*;
    use clap::CommandFactory;

    fn dashed(line: &str) -> String {
        let mut grammar = Cli::command();
        grammar.build();
        let args = ["minionsctl"].into_iter().chain(line.split(' ')).map(OsString::from);
        let words = with_dashes(&grammar, args.collect());
        let words: Vec<_> = words[1..].iter().map(|word| word.to_str().unwrap()).collect();
        words.join(" ")
    }

    #[test]
    fn the_first_word_after_the_vm_is_the_program() {
        for (line, with_dashes) in [
            ("exec web-1 uptime", "exec web-1 -- uptime"),
            ("exec web-1 ls -la --host", "exec web-1 -- ls -la --host"),
            ("exec -it web-1 sh -c x", "exec -it web-1 -- sh -c x"),
            ("exec web-1 -it sh", "exec web-1 -it -- sh"),
            ("exec -e A=B web-1 -w /tmp env -i", "exec -e A=B web-1 -w /tmp -- env -i"),
            ("exec -ite A web-1 sh", "exec -ite A web-1 -- sh"),
            ("exec -iteA=1 web-1 sh", "exec -iteA=1 web-1 -- sh"),
            ("--timeout 5s exec --env=A web-1 x -- y", "--timeout 5s exec --env=A web-1 -- x -- y"),
            ("-o json exec web-1 --timeout 1s true", "-o json exec web-1 --timeout 1s -- true"),
            ("exec --on web-* uname -r", "exec --on web-* -- uname -r"),
            ("exec --all --group uname", "exec --all --group -- uname"),
            ("exec -l app=web uname", "exec -l app=web -- uname"),
            ("--socket /s exec -i cat", "--socket /s exec -i -- cat"),
            ("exec --socket=/s true", "exec --socket=/s -- true"),
            ("exec web-1 -", "exec web-1 -- -"),
            ("ssh eve@web-1 uptime -p", "ssh eve@web-1 -- uptime -p"),
        ] {
            assert_eq!(dashed(line), with_dashes, "{line}");
        }
    }

    #[test]
    fn other_words_stay_as_they_are() {
        for line in [
            "exec web-1 -- ls -- x",
            "exec -- true",
            "exec --on web-* -- uname -r",
            "exec web-1",
            "exec --on web-* web-1 -- true",
            "--socket /s exec web-1 -- true",
            "exec --bogus web-1 true",
            "exec -ix web-1 true",
            "exec -t",
            "exec -e",
            "logs web-1 x",
            "quiesce web-1 true",
            "--host exec ls",
            "bogus web-1 true",
            "help exec",
        ] {
            assert_eq!(dashed(line), line, "{line}");
        }
    }
}
