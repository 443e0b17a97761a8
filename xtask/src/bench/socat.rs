//! The bare socket: two socats with a Unix socket between them, no protocol and nothing kept.

use std::{path::Path, process::Command};

use super::process::Background;

/// As much at a time as all the others take.
const BUFFER: &str = "65536";

/// Which way the bytes go.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    FromScript,
    ToScript,
}

/// The side that runs `script`, waiting for one connection to the socket at `path`.
pub(crate) fn serve(path: &Path, way: Way, script: &str, log: &Path) -> anyhow::Result<Background> {
    let mut command = Command::new("socat");
    command.arg(match way {
        Way::FromScript => "-U",
        Way::ToScript => "-u",
    });
    command.args(["-b", BUFFER]).arg(format!("UNIX-LISTEN:{}", path.display()));
    // By a shell; a script without colons, commas and quotes, which are socat's.
    command.arg(format!("SYSTEM:{script}"));
    let mut server = Background::spawn(&command, log)?;
    server.wait_until("socat listens", || path.exists().then_some(()))?;
    Ok(server)
}

/// The side that reads: from the socket to its standard output.
pub(crate) fn read(path: &Path) -> Command {
    let mut command = Command::new("socat");
    command.args(["-u", "-b", BUFFER]).arg(format!("UNIX-CONNECT:{}", path.display())).arg("-");
    command
}

/// The side that writes, from its standard input; it ends when the socket has taken it all.
pub(crate) fn write(path: &Path) -> Command {
    let mut command = Command::new("socat");
    command.args(["-u", "-b", BUFFER, "-"]).arg(format!("UNIX-CONNECT:{}", path.display()));
    command
}
