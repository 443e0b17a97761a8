//! Signals in the form of kill(1): `kill -9 VM ID`, `kill -TERM VM ID`.

use clap::Command;
use std::ffi::OsString;

/// Replaces the signal of the command `kill`, in the form of kill(1), by `-s SIGNAL`. `args` begins with the program's name
/// of minionsctl. Returns `args` unchanged if the word after `kill` is an option of minionsctl.
pub(super) fn with_signal_option(grammar: &Command, mut args: Vec<OsString>) -> Vec<OsString> {
    let Some(at) = args.iter().position(|word| word == "kill") else { return args };
    let signal = args.get(at + 1).and_then(|word| word.to_str()?.strip_prefix('-'));
    let signal = signal.map(str::to_owned).filter(|signal| is_signal(grammar, signal));
    if let Some(signal) = signal {
        args[at + 1] = signal.into();
        args.insert(at + 1, "-s".into());
    }
    args
}

/// Reports whether the text is a number or a name in capital letters, and no option of `kill` begins with its first
/// letter.
fn is_signal(grammar: &Command, text: &str) -> bool {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_name = text.len() > 1
        && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    let is_option = grammar.find_subcommand("kill").is_some_and(|kill| {
        kill.get_arguments()
            .any(|arg| arg.get_short().is_some() && arg.get_short() == text.chars().next())
    });
    (is_number || is_name) && !is_option
}

#[cfg(test)]
mod tests {
    use super::super::{Cli, Command as CliCommand};

    #[test]
    fn kill_takes_signals_as_kill_1_does() {
        for (line, signal) in [
            ("kill -9 web-1 job", Some("KILL")),
            ("kill -TERM web-1 job", Some("TERM")),
            ("kill -SIGUSR1 web-1 job", Some("USR1")),
            ("--timeout 5s kill -INT web-1 job", Some("INT")),
            ("kill -s HUP web-1 job", Some("HUP")),
            ("kill -sHUP web-1 job", Some("HUP")),
            ("kill web-1 job", None),
        ] {
            let words = ["minionsctl"].into_iter().chain(line.split(' ')).map(Into::into);
            let CliCommand::Kill(args) = Cli::parse_words(words).unwrap().command else {
                panic!("not kill")
            };
            assert_eq!(args.signal.map(|signal| signal.to_string()).as_deref(), signal, "{line}");
            assert_eq!(args.exec.vm.unwrap().as_str(), "web-1", "{line}");
        }
    }

    #[test]
    fn the_words_of_a_program_stay_as_they_are() {
        let words = ["minionsctl", "exec", "web-1", "kill", "-9", "1"].map(Into::into);
        let CliCommand::Exec(args) = Cli::parse_words(words).unwrap().command else {
            panic!("not exec")
        };
        assert_eq!(args.argv, ["kill", "-9", "1"]);
    }

    #[test]
    fn an_unknown_signal_is_a_usage_error() {
        for line in ["kill -0 web-1 job", "kill -NOPE web-1 job", "kill -999 web-1 job"] {
            let words = ["minionsctl"].into_iter().chain(line.split(' ')).map(Into::into);
            assert!(Cli::parse_words(words).is_err(), "{line}");
        }
    }
}
