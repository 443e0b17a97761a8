//! The bare socket: two socats with a Unix socket between them, without a protocol or buffering of output.

use std::{path::Path, process::Command};

use crate::programs::background::BackgroundProgram;

/// Buffer size in bytes, the same as that of all other contenders.
const BUFFER: &str = "65536";

/// Direction of the bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SocatDirection {
    FromScript,
    ToScript,
}

/// Starts the side that runs `script` and waits for one connection to the socket at `path`.
pub(crate) fn serve(
    path: &Path,
    way: SocatDirection,
    script: &str,
    log: &Path,
) -> anyhow::Result<BackgroundProgram> {
    let mut command = Command::new("socat");
    command.arg(match way {
        SocatDirection::FromScript => "-U",
        SocatDirection::ToScript => "-u",
    });
    command.args(["-b", BUFFER]).arg(format!("UNIX-LISTEN:{}", path.display()));
    // socat runs the script in a shell; it must not contain colons, commas or quotes, which are socat's syntax.
    command.arg(format!("SYSTEM:{script}"));
    let mut server = BackgroundProgram::spawn(&command, log)?;
    server.wait_until("socat listens", || path.exists().then_some(()))?;
    Ok(server)
}

/// Returns the side that reads from the socket to its standard output.
pub(crate) fn read(path: &Path) -> Command {
    let mut command = Command::new("socat");
    command.args(["-u", "-b", BUFFER]).arg(format!("UNIX-CONNECT:{}", path.display())).arg("-");
    command
}

/// Returns the side that writes its standard input to the socket; it ends when the socket has accepted
/// everything.
pub(crate) fn write(path: &Path) -> Command {
    let mut command = Command::new("socat");
    command.args(["-u", "-b", BUFFER, "-"]).arg(format!("UNIX-CONNECT:{}", path.display()));
    command
}
