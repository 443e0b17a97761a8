//! The manual page minionsd(8).

use clap::{Command, CommandFactory};
use manual::{ManualPage, PageBlock};
use minionsd::config::Args;
use std::io;

const DESCRIPTION: [&str; 4] = [
    "minionsd finds the microVMs of this host by their sockets (`<vm>.vsock` in the directory of `--socket-dir`), \
     keeps connections to the minions-agent(8) in each of them over VSOCK, and serves health, network, programs, \
     files, ports and declared configuration as REST, on a Unix socket and on a TCP address. A guest needs no network.",
    "Root, minionsd's own user and the members of the group minions operate over the Unix socket. Over TCP on the \
     loopback address, all users of this host read; to operate, a caller needs the bearer token of `--token-file`. An \
     address other than loopback requires TLS and the token.",
    "Each setting is taken from the first source that has it: the option, the variable, the configuration file, the \
     default. Unknown settings and wrong values are errors: minionsd does not start, and names the setting.",
    "The state of the VMs survives a restart: programs in guests continue, and clients re-attach to them.",
];

/// Commands, and their purposes.
const EXAMPLES: [(&str, &str); 5] = [
    (
        "minionsd",
        "Serves 127.0.0.1:7070 and /run/minions/minionsd.sock, with the file /etc/minions/minionsd.toml if it exists.",
    ),
    (
        "minionsd --listen none --unix-socket /tmp/d.sock --socket-dir /tmp/vms --state none",
        "Serves only a Unix socket, for the VMs of another directory, and keeps declarations in memory.",
    ),
    (
        "minionsd --listen 0.0.0.0:7070 --tls-cert cert.pem --tls-key key.pem --token-file token",
        "Serves other hosts, over TLS and with a token.",
    ),
    ("minionsd --log-level minionsd=debug --log-format json", "Writes more to the log, as JSON."),
    ("minionsd openapi > minions.json", "Prints the OpenAPI document, and exits."),
];

const EXIT_STATUS: [(&str, &str); 3] = [
    ("0", "The daemon ended after SIGTERM or SIGINT, or `openapi` was printed."),
    (
        "1",
        "The configuration is invalid, or the daemon cannot start. Standard error has the reason.",
    ),
    ("2", "A command line that cannot be parsed."),
];

const SIGNALS: [(&str, &str); 2] = [
    (
        "SIGTERM, SIGINT",
        "Ends the daemon: no new connections are accepted, and requests in progress have `shutdown_grace_secs` to \
         complete. Programs in guests continue.",
    ),
    ("SIGHUP", "Reads the TLS files again. If they cannot be used, the current ones stay in use."),
];

const FILES: [(&str, &str); 6] = [
    ("/etc/minions/minionsd.toml", "Configuration file, unless `--config` names another one."),
    (
        "/run/minions/VM.vsock",
        "Socket of a VM, which its VMM creates. No other user than root may write to the directory.",
    ),
    (
        "/run/minions/VM.vsock_1025",
        "Socket for the announcement of the VM's agent, which minionsd creates.",
    ),
    ("/run/minions/minionsd.sock", "Unix socket of the REST interface, mode 0660."),
    ("/var/lib/minions/token", "Bearer token, created at the first start under systemd."),
    ("/var/lib/minions/minionsd.db", "Database of declarations, pools and leases, under systemd."),
];

/// Variables without an option, and their descriptions.
const VARIABLES: [(&str, &str); 1] = [(
    "STATE_DIRECTORY",
    "State directory, which systemd sets: the default place of the token and of the database.",
)];

/// Returns the page.
pub(crate) fn page(date: &str) -> io::Result<ManualPage> {
    let mut command = Args::command().disable_help_subcommand(true);
    command.build();
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let paragraphs = DESCRIPTION.map(PageBlock::text);
    Ok(ManualPage::new("minionsd", 8, &about, date)
        .with_synopsis(["minionsd [OPTIONS]", "minionsd openapi"])
        .with_section("DESCRIPTION", &paragraphs)
        .with_options(&command)?
        .with_section("COMMANDS", &commands(&command))
        .with_section("EXAMPLES", &PageBlock::items(EXAMPLES))
        .with_section("EXIT STATUS", &PageBlock::items(EXIT_STATUS))
        .with_section("SIGNALS", &PageBlock::items(SIGNALS))
        .with_section("ENVIRONMENT", &variables(&command))
        .with_section("FILES", &PageBlock::items(FILES))
        .with_section(
            "SEE ALSO",
            &[PageBlock::text("minionsctl(1), minions-agent(8), systemctl(1)")],
        ))
}

fn commands(command: &Command) -> Vec<PageBlock> {
    let item = |below: &Command| {
        let about = below.get_about().map(ToString::to_string).unwrap_or_default();
        PageBlock::Item(below.get_name().to_owned(), format!("{about}."))
    };
    command.get_subcommands().map(item).collect()
}

/// Returns the variables of the options, and those without one.
fn variables(command: &Command) -> Vec<PageBlock> {
    let of_options = command.get_arguments().filter_map(|argument| {
        let (name, long) = (argument.get_env()?.to_str()?, argument.get_long()?);
        Some(PageBlock::Item(name.to_owned(), format!("As `--{long}`.")))
    });
    of_options.chain(PageBlock::items(VARIABLES)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use manual::example::invocations;

    #[test]
    fn the_page_has_all_sections_options_and_variables() {
        let page = page("2026-01-31").unwrap();
        let roff = page.roff();
        for section in [
            "NAME",
            "SYNOPSIS",
            "DESCRIPTION",
            "OPTIONS",
            "COMMANDS",
            "EXAMPLES",
            "\"EXIT STATUS\"",
            "SIGNALS",
            "ENVIRONMENT",
            "FILES",
            "\"SEE ALSO\"",
        ] {
            assert!(roff.contains(&format!("\n.SH {section}\n")), "no {section}");
        }
        let command = Args::command();
        let (_, environment) = roff.split_once(".SH ENVIRONMENT").unwrap();
        for argument in command.get_arguments() {
            let long = argument.get_long().unwrap().replace('-', r"\-");
            assert!(roff.contains(&format!(r"\fB\-\-{long}\fR")), "no {long}");
            if let Some(name) = argument.get_env() {
                assert!(environment.contains(name.to_str().unwrap()), "no {name:?}");
            }
        }
        assert_eq!(page.faults(), [""; 0]);
    }

    #[test]
    fn every_example_parses() {
        for (line, _) in EXAMPLES {
            let found = invocations(line, "minionsd");
            assert_eq!(found.len(), 1, "{line}");
            if let Err(error) = Args::try_parse_from(&found[0]) {
                panic!("{line}: {error}");
            }
        }
    }
}
