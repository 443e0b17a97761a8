//! All checks in order; stops at the first one that fails.

mod fuzz;
mod language;
mod summary;

use std::{
    io::{BufRead, BufReader},
    process::{Command, ExitCode, Stdio},
    thread,
};

use anyhow::Context;

use crate::{
    command,
    progress::{self, Outcome, Steps},
    setup::{self, cargo_tool},
    workspace::Workspace,
};
use summary::Summary;

/// Number of own steps: format, language, lints, docs, dependencies, fuzzing, tests.
const OWN_STEPS: usize = 7;

/// Number of steps of [`quick`]: format, language, lints, tests.
const QUICK_STEPS: usize = 4;

/// Tests that need neither a VM nor another prepared artifact: unit tests, and the test programs named `it`.
const QUICK: TestGroup =
    TestGroup { selection: &["--lib", "--bins", "--test", "it"], threads_on_two_processors: 6 };

/// Tests without a VM: all but the test programs named `vm`. They mostly wait, so several run on each processor.
const WITHOUT_A_VM: TestGroup =
    TestGroup { selection: &["--lib", "--bins", "--test", "[!v]*"], threads_on_two_processors: 6 };

/// Tests with a VM: one that boots uses a processor, and the others wait for half of the time.
const WITH_A_VM: TestGroup =
    TestGroup { selection: &["--test", "vm"], threads_on_two_processors: 3 };

/// Tests that run together.
#[derive(Clone, Copy)]
struct TestGroup {
    /// Arguments of `cargo test` that select the test programs.
    selection: &'static [&'static str],
    threads_on_two_processors: usize,
}

/// Sets up, then runs the checks.
///
/// # Errors
///
/// A step before the tests failed. Failed tests result in a failing exit code instead: the last line is the
/// summary, as it is when they pass.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<ExitCode> {
    let mut steps = Steps::new(setup::TEST_STEPS + OWN_STEPS);
    setup::for_tests(workspace, &mut steps)?;
    check_sources(workspace, &mut steps)?;
    Ok(tests(workspace, &mut steps, &[WITHOUT_A_VM, WITH_A_VM]))
}

/// Runs the checks that need no setup: for a quick answer while working.
///
/// # Errors
///
/// As [`run`].
pub(crate) fn quick(workspace: &Workspace) -> anyhow::Result<ExitCode> {
    let mut steps = Steps::new(QUICK_STEPS);
    format(workspace, &mut steps)?;
    lints(workspace, &mut steps)?;
    Ok(tests(workspace, &mut steps, &[QUICK]))
}

/// Runs the groups one after another, and prints the summary as the last line.
fn tests(workspace: &Workspace, steps: &mut Steps, groups: &[TestGroup]) -> ExitCode {
    let mut summary = Summary::default();
    let outcome = steps.run_aloud("tests", || {
        for group in groups {
            run_tests(workspace, *group, &mut summary)?;
        }
        summary.verdict()?;
        Ok(Outcome::done("passed"))
    });
    if let Err(error) = &outcome {
        for failure in summary.failures() {
            progress::error(&anyhow::Error::msg(failure));
        }
        progress::error(error);
    }
    // Alone on the last line, because scripts read it.
    progress::line(&summary);
    if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn format(workspace: &Workspace, steps: &mut Steps) -> anyhow::Result<()> {
    steps.run("format", || passed(workspace.cargo("fmt").args(["--all", "--check"])))?;
    steps.run("language", || language::run(workspace))
}

fn lints(workspace: &Workspace, steps: &mut Steps) -> anyhow::Result<()> {
    steps.run("lints", || {
        let mut clippy = workspace.cargo("clippy");
        clippy.args(["--workspace", "--all-targets", "--all-features", "--locked"]);
        passed(clippy.args(["--", "-D", "warnings"]))
    })
}

fn check_sources(workspace: &Workspace, steps: &mut Steps) -> anyhow::Result<()> {
    thread::scope(|scope| {
        let fuzz_targets = scope.spawn(|| fuzz::build(workspace));
        format(workspace, steps)?;
        lints(workspace, steps)?;
        steps.run("docs", || {
            let mut doc = workspace.cargo("doc");
            doc.args(["--workspace", "--all-features", "--no-deps", "--locked"]);
            passed(doc.env("RUSTDOCFLAGS", "-D warnings"))
        })?;
        steps.run("dependencies", || {
            let mut deny = Command::new(cargo_tool::CARGO_DENY.program(workspace.rig()));
            // Advisories are in a repository that not every machine can reach.
            deny.args(["check", "bans", "licenses", "sources"]).current_dir(workspace.root());
            passed(&mut deny)
        })?;
        steps.run("fuzzing", || fuzz::run(workspace, &setup::joined(fuzz_targets)?))
    })
}

fn passed(command: &mut Command) -> anyhow::Result<Outcome> {
    command::run(command)?;
    Ok(Outcome::done("passed"))
}

/// Runs the tests and passes their output on line by line.
///
/// Cargo also builds the programs of each package that has tests in `tests/`, so the tests of one crate can start those
/// of another. A build of the programs alone would compile half of the dependencies a second time: their features differ
/// without the dependencies of the tests.
fn run_tests(workspace: &Workspace, group: TestGroup, summary: &mut Summary) -> anyhow::Result<()> {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let threads = (processors * group.threads_on_two_processors).div_ceil(2);
    let cargo = workspace.cargo("test");
    // A shell that runs this in the background may have set some signals to be ignored. Programs under test
    // inherit and respect that, so the signals are reset.
    let mut child = Command::new("env")
        .arg("--default-signal=HUP,INT,QUIT,TERM")
        .arg(cargo.get_program())
        .args(cargo.get_args())
        .current_dir(workspace.root())
        .args(["--workspace", "--all-features", "--locked", "--no-fail-fast"])
        .args(group.selection)
        .env("RUST_TEST_THREADS", threads.to_string())
        .env("MINIONS_RIG_DIR", workspace.rig().dir())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo test")?;
    if let Some(stdout) = child.stdout.take() {
        let mut lines = BufReader::new(stdout).split(b'\n');
        while let Some(line) = lines.next().transpose().context("cannot read from cargo test")? {
            let line = String::from_utf8_lossy(&line);
            summary.read(&line);
            progress::line(line);
        }
    }
    let status = child.wait().context("cannot wait for cargo test")?;
    summary.finish(status.success());
    Ok(())
}
