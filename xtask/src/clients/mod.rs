//! Real clients against a Debian guest that has neither sshd nor an address: a check outside of the test run, because
//! it needs packages and minutes.
//!
//! # Layout
//!
//! - [`guest`]: the guest, minionsd, and the environment of the scripts.
//! - `scripts`: the checks that consist of commands, and the servers and clients that they need.
//! - [`resets`]: a reset of the guest ends the connections of forwards.
//! - [`kills`]: SIGKILL in the middle of copies leaves nothing.

mod guest;
mod kills;
mod resets;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{
    Args,
    builder::{PossibleValue, PossibleValuesParser},
};

use crate::{
    command,
    demo::interrupt::InterruptSignal,
    progress::{self, Outcome, Steps},
    setup,
    workspace::Workspace,
};
use guest::ClientGuest;

/// Number of own steps before the checks: programs and guest.
const OWN_STEPS: usize = 2;

/// Named check.
#[derive(Debug)]
struct ClientCheck {
    name: &'static str,
    description: &'static str,
    /// Returns the figures.
    run: fn(&mut ClientGuest) -> anyhow::Result<String>,
}

const CHECKS: [ClientCheck; 7] = [
    ClientCheck {
        name: "big",
        description: "1 GiB in each direction with minionsctl cp",
        run: |guest| guest.script("big"),
    },
    ClientCheck {
        name: "tree",
        description: "A tree of 5,000 files in and out, compared by rsync and find",
        run: |guest| guest.script("tree"),
    },
    ClientCheck {
        name: "ssh",
        description: "ssh, scp, sftp, rsync and git",
        run: |guest| guest.script("ssh"),
    },
    ClientCheck {
        name: "ansible",
        description: "Ansible: ping, copy, fetch, and a playbook with become",
        run: |guest| guest.script("ansible"),
    },
    ClientCheck {
        name: "forward",
        description: "A web server: curl, wrk, WebSocket, half-close; descriptors and memory after 6,768 connections",
        run: |guest| guest.script("forward"),
    },
    ClientCheck {
        name: "reset",
        description: "A reset of the guest ends 20 idle connections",
        run: resets::check,
    },
    ClientCheck {
        name: "kill",
        description: "SIGKILL of client, daemon and agent in the middle of copies",
        run: kills::check,
    },
];

/// Options of `cargo xtask clients`.
#[derive(Debug, Args)]
pub(crate) struct ClientsOptions {
    /// Checks to run [default: all]
    #[arg(value_parser = names())]
    checks: Vec<String>,
    /// Directory with minionsd and minionsctl [default: built in the release profile]
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
}

fn names() -> PossibleValuesParser {
    CHECKS.map(|check| PossibleValue::new(check.name).help(check.description)).into()
}

/// Prepares the guest and runs the checks. Each prints one line with its figures; a failed one results in a failing
/// exit code, and the others still run.
///
/// # Errors
///
/// The guest or a program cannot be prepared or started.
pub(crate) fn run(workspace: &Workspace, options: &ClientsOptions) -> anyhow::Result<ExitCode> {
    let is_wanted = |check: &&ClientCheck| {
        options.checks.is_empty() || options.checks.iter().any(|name| name == check.name)
    };
    let checks: Vec<&ClientCheck> = CHECKS.iter().filter(is_wanted).collect();
    let mut steps = Steps::new(setup::CLIENTS_STEPS + OWN_STEPS + checks.len());
    let ansible = setup::for_clients(workspace, &mut steps)?;
    let release = workspace.target().join("release");
    let programs = options.programs.clone().unwrap_or(release);
    let programs = programs.canonicalize().unwrap_or(programs);
    steps.run("minionsd and minionsctl", || build(workspace, options))?;
    // Ends the guest and removes its files also after Ctrl-C, which ends the commands of the check itself.
    let mut interrupt = InterruptSignal::install()?;
    let mut guest = None;
    steps.run("guest without sshd and address", || {
        let (started, figures) = ClientGuest::start(workspace, programs, ansible)?;
        guest = Some(started);
        Ok(Outcome::done(figures))
    })?;
    let mut guest = guest.context("the guest has not been started")?;
    let mut failed = Vec::new();
    for check in checks {
        if let Err(error) = steps.run(check.name, || Ok(Outcome::done((check.run)(&mut guest)?))) {
            progress::error(&error);
            failed.push(check.name);
        }
        interrupt.check()?;
    }
    drop(guest);
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    progress::line(format!("failed: {}", failed.join(", ")));
    Ok(ExitCode::FAILURE)
}

/// Builds each program separately, so that none gets the features that another one enables.
fn build(workspace: &Workspace, options: &ClientsOptions) -> anyhow::Result<Outcome> {
    if options.programs.is_some() {
        return Ok(Outcome::Cached);
    }
    for package in ["minionsd", "minionsctl"] {
        let mut build = workspace.cargo("build");
        command::run(build.args(["--release", "--locked", "-p", package]))?;
    }
    Ok(Outcome::done("built"))
}
