//! A tour of a real VM: every command that is shown is executed.
//!
//! # Layout
//!
//! - [`daemon`]: minionsd as a child process that is stopped in order.
//! - [`tour`]: the commands that are shown.
//! - [`shown`]: prints and runs one of them, and checks its result.
//! - [`interrupt`]: Ctrl-C and SIGTERM end the demo, and everything is cleaned up.

pub(crate) mod daemon;
pub(crate) mod interrupt;
mod shown;
mod tour;

use std::{
    fs::{self, Permissions},
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    time::Duration,
};

use anyhow::Context;
use tempfile::TempDir;
use testkit::rig::{Artifacts, Vm, VmConfig};

use crate::{
    command,
    progress::{self, Outcome, Steps},
    setup,
    workspace::Workspace,
};
use daemon::DemoDaemon;
use interrupt::InterruptSignal;
use tour::DemoTour;

/// Name of the VM; the documentation uses it too.
const VM_NAME: &str = "agent-test-vm";

/// VSOCK port at which the agent listens in the guest.
const AGENT_PORT: u32 = 1024;

/// Deadline for a boot, which takes three seconds; long enough for a very busy machine.
const BOOT_TIMEOUT: Duration = Duration::from_secs(120);

/// Number of the demo's own steps: binaries, VM, daemon.
const OWN_STEPS: usize = 3;

/// Options of `cargo xtask demo`.
#[derive(Debug)]
pub(crate) struct DemoOptions {
    pub(crate) once: bool,
    pub(crate) listen: SocketAddr,
}

/// Sets up, gives the tour, and stays until a signal comes (unless `once`).
pub(crate) fn run(workspace: &Workspace, options: &DemoOptions) -> anyhow::Result<()> {
    check_free(options.listen)?;
    let mut steps = Steps::new(setup::VM_STEPS + OWN_STEPS);
    setup::for_vm(workspace, &mut steps)?;
    steps.run("minionsd and minionsctl", || build(workspace))?;

    let mut interrupt = InterruptSignal::install()?;
    // Dropped in the reverse order: daemon, VM, directory.
    let dir = socket_dir()?;
    let artifacts = Artifacts::locate()?;
    let mut vm = Vm::boot(&artifacts, VmConfig::new(VM_NAME, dir.path()))?;
    steps.run("virtual machine", || {
        // The daemon starts only after this: see `Vm::reset` for the faults that the vsock backend does not
        // survive.
        vm.wait_for_port(AGENT_PORT, BOOT_TIMEOUT)?;
        Ok(Outcome::done("booted"))
    })?;
    interrupt.check()?;
    let programs = workspace.target().join("quick");
    let mut daemon = DemoDaemon::start(&programs.join("minionsd"), options.listen, dir.path())?;
    let tour = DemoTour::new(&programs.join("minionsctl"), &daemon, vm.name(), vm.socket_path());
    steps.run("daemon", || {
        daemon.wait_until_listening()?;
        command::run(&mut tour.wait_until_ready())?;
        Ok(Outcome::done("found the VM ready"))
    })?;
    for part in tour.parts() {
        progress::title(part.title);
        for command in part.commands {
            interrupt.check()?;
            shown::run(command)?;
        }
    }
    if !options.once {
        tour.print_what_to_try();
        interrupt.wait();
    }
    daemon.stop()
}

/// Checks the port first: otherwise a port in use would be reported only after minutes of setup.
fn check_free(listen: SocketAddr) -> anyhow::Result<()> {
    TcpListener::bind(listen).map(drop).with_context(|| {
        format!("cannot serve on {listen}; choose another with --listen ADDRESS:PORT")
    })
}

fn build(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let mut build = workspace.cargo("build");
    build.args(["--profile", "quick", "--locked", "-p", "minionsd", "-p", "minionsctl"]);
    command::run(&mut build)?;
    Ok(Outcome::done("built"))
}

/// Creates a directory that is readable by all, as the real one is: minionsd accepts no socket from a
/// directory to which other users can write.
pub(crate) fn socket_dir() -> anyhow::Result<TempDir> {
    let dir = tempfile::Builder::new()
        .prefix("minions-")
        .permissions(Permissions::from_mode(0o755))
        .tempdir()
        .context("cannot create a directory for the sockets")?;
    // Undoes the effect of the umask.
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755))?;
    Ok(dir)
}
