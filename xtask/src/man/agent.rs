//! The page minions-agent(8): the options of its help, and written sections.

use anyhow::{Context, ensure};
use manual::{ManualPage, PageBlock, sentence};

const DESCRIPTION: [&str; 3] = [
    "minions-agent runs in a microVM, usually as root. It listens on VSOCK, and serves the requests of minionsd(8) on \
     the host: health, status, network, programs, files, forwards, clock, power. It takes connections from the host \
     only (CID 2), and needs neither a network nor a configuration file.",
    "Usually a socket unit of systemd holds the port, and passes it to the agent (`--listen activated`). In a VM \
     without another init, the agent is the first process (`--init`).",
    "`--allow` restricts what the host may do. A refused request is an error that names the operation.",
];

/// Commands, and their purposes.
pub(super) const EXAMPLES: [(&str, &str); 5] = [
    ("minions-agent", "Serves all operations on VSOCK port 1024."),
    ("minions-agent --allow health,status,network", "Serves only these operations."),
    ("minions-agent --port 2048", "Uses another port; `agent_port` of minionsd must be the same."),
    (
        "minions-agent --listen hybrid:/tmp/vms/test.vsock",
        "Stands for a VM: minionsd with `--socket-dir /tmp/vms` finds it. For tests.",
    ),
    (
        "minions-agent --init --log-level debug",
        "Runs as the first process. On the kernel's command line: `init=/usr/local/bin/minions-agent -- --init \
         --log-level debug`.",
    ),
];

const EXIT_STATUS: [(&str, &str); 3] = [
    ("0", "The agent ended after SIGTERM or SIGINT."),
    (
        "1",
        "The agent cannot start, for example because the port is in use. Standard error has the reason.",
    ),
    ("2", "A command line that cannot be parsed."),
];

const ENVIRONMENT: [(&str, &str); 3] = [
    ("MINIONS_AGENT_PORT", "VSOCK port, as `--port`, which overrides it."),
    ("LISTEN_PID, LISTEN_FDS", "Socket that the service manager passes, see sd_listen_fds(3)."),
    (
        "NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID",
        "Messages to the service manager, see sd_notify(3).",
    ),
];

const FILES: [(&str, &str); 4] = [
    (
        "/etc/minions/freeze.d, /etc/minions/thaw.d",
        "Hooks before the file systems are frozen, and after the thaw.",
    ),
    ("/etc/minions/restore.d", "Hooks after the guest was restored from a snapshot."),
    ("/etc/systemd/system/minions-agent.socket", "Socket unit, which holds the port."),
    (
        "/etc/systemd/system/minions-agent.service",
        "Service unit. `systemctl edit` changes the options.",
    ),
];

/// Returns the page. `help` is what `minions-agent --help` prints.
pub(super) fn page(help: &str, date: &str) -> anyhow::Result<ManualPage> {
    let (first, rest) = help.split_once("\n\n").context("the help of minions-agent is empty")?;
    let about = first.strip_prefix("minions-agent: ").context("the help has no description")?;
    let options = options(rest);
    ensure!(!options.is_empty(), "the help of minions-agent has no options");
    Ok(ManualPage::new("minions-agent", 8, about, date)
        .with_synopsis(["minions-agent [OPTIONS]"])
        .with_section("DESCRIPTION", &DESCRIPTION.map(PageBlock::text))
        .with_section("OPTIONS", &options)
        .with_section("EXAMPLES", &PageBlock::items(EXAMPLES))
        .with_section("EXIT STATUS", &PageBlock::items(EXIT_STATUS))
        .with_section("ENVIRONMENT", &PageBlock::items(ENVIRONMENT))
        .with_section("FILES", &PageBlock::items(FILES))
        .with_section(
            "SEE ALSO",
            &[PageBlock::text("minionsd(8), minionsctl(1), systemctl(1), vsock(7)")],
        ))
}

/// Returns the options. A line that begins with two spaces and a dash begins an option; the description follows after
/// at least two more spaces, or on the next lines.
fn options(help: &str) -> Vec<PageBlock> {
    let mut options: Vec<(String, Vec<String>)> = Vec::new();
    for line in help.lines().filter(|line| line.starts_with("  ")) {
        let text = line.trim();
        if line.starts_with("  -") {
            let (option, description) = text.split_once("  ").unwrap_or((text, ""));
            options.push((option.to_owned(), vec![description.trim().to_owned()]));
        } else if let Some((_, description)) = options.last_mut() {
            description.push(text.to_owned());
        }
    }
    let item = |(option, description): (String, Vec<String>)| {
        let description = description.join(" ").trim().to_owned();
        let description = match option.as_str() {
            "--version" => "Print the version.".to_owned(),
            "--help" => "Print a summary of the options.".to_owned(),
            _ => sentence(&description),
        };
        PageBlock::Item(option, description)
    };
    options.into_iter().map(item).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELP: &str = "\
minions-agent: daemon in a guest

usage: minions-agent [OPTIONS]

  --listen vsock:PORT | activated
                                      where to accept
                                      connections
  --port PORT                         VSOCK port
                                      [env: MINIONS_AGENT_PORT]
  --version
";

    #[test]
    fn the_options_of_the_help_are_found() {
        let item = |option: &str, text: &str| PageBlock::Item(option.into(), text.into());
        let expected = [
            item("--listen vsock:PORT | activated", "Where to accept connections."),
            item("--port PORT", "VSOCK port [env: MINIONS_AGENT_PORT]."),
            item("--version", "Print the version."),
        ];
        assert_eq!(options(HELP), expected);
    }

    #[test]
    fn the_page_has_all_sections() {
        let page = page(HELP, "2026-01-31").unwrap();
        for section in [
            "NAME",
            "OPTIONS",
            "EXAMPLES",
            "\"EXIT STATUS\"",
            "ENVIRONMENT",
            "FILES",
            "\"SEE ALSO\"",
        ] {
            assert!(page.roff().contains(&format!("\n.SH {section}\n")), "no {section}");
        }
        assert_eq!(page.faults(), [""; 0]);
        assert!(
            super::page("", "").is_err() && super::page("minions-agent: x\n\nusage", "").is_err()
        );
    }

    /// Reads the source, because the agent has no grammar that a test could read.
    #[test]
    fn the_page_of_the_agents_help_has_the_options_of_the_examples() {
        let source = include_str!("../../../minions-agent/src/main.rs");
        let (_, rest) = source.split_once("const HELP: &str = \"\\\n").unwrap();
        let help = rest.split_once("\n\";\n").unwrap().0;
        let page = page(help, "").unwrap();
        let (_, rest) = page.roff().split_once(".SH OPTIONS").unwrap();
        let options = rest.split_once("\n.SH ").unwrap().0;
        for (line, _) in EXAMPLES {
            for word in line.split(' ').filter(|word| word.starts_with("--")) {
                let option = format!(r"\fB{}", word.replace('-', r"\-"));
                assert!(options.contains(&option), "{word}");
            }
        }
        let named = help.split("[env: ").skip(1).filter_map(|rest| rest.split(']').next());
        for name in named {
            assert!(ENVIRONMENT.iter().any(|(known, _)| *known == name), "{name}");
        }
        assert_eq!(options.matches("\n.TP\n").count(), 12, "{options}");
    }
}
