//! A short run of every fuzz target. `cargo fuzz run` is for longer ones.
//!
//! Uses the stable compiler. Beyond these flags, `cargo fuzz` adds the address sanitizer, but no fuzzed crate has unsafe
//! code of its own, and code that is not called, which would double the time of the build.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    thread,
};

use anyhow::{Context, anyhow};

use crate::{
    command::{self, cargo},
    progress::Outcome,
    workspace::Workspace,
};

/// Package of the fuzz targets. A workspace of its own, because of these flags.
const PACKAGE: &str = "fuzz";

/// Instrumentation for libFuzzer. Passed only together with `--target`, so that build scripts are not
/// instrumented.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Cdebug-assertions";

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Number of targets that run at the same time: each uses one processor.
const WORKERS: usize = 2;

/// Duration of the run of one target, in seconds.
const SECONDS: u32 = 5;

/// Programs of the fuzz targets.
pub(super) struct FuzzTargets {
    names: Vec<String>,
    programs: PathBuf,
}

/// Builds all fuzz targets.
pub(super) fn build(workspace: &Workspace) -> anyhow::Result<FuzzTargets> {
    let dir = workspace.root().join(PACKAGE);
    let build = workspace.target().join("fuzz");
    let mut cargo = cargo();
    cargo.args(["build", "--release", "--locked", "--target", TARGET, "--manifest-path"]);
    cargo.arg(dir.join("Cargo.toml")).arg("--target-dir").arg(&build);
    // With optimization, building all of minionsd takes longer than these runs.
    cargo.env("RUSTFLAGS", FLAGS).env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0");
    command::run(&mut cargo)?;
    Ok(FuzzTargets { names: names(&dir)?, programs: build.join(TARGET).join("release") })
}

/// Runs all fuzz targets.
pub(super) fn run(workspace: &Workspace, targets: &FuzzTargets) -> anyhow::Result<Outcome> {
    let FuzzTargets { names, programs } = targets;
    let runs = AtomicU64::new(0);
    let next = AtomicUsize::new(0);
    let work = || -> anyhow::Result<()> {
        while let Some(target) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
            let corpus = kept(workspace, "corpus", target)?;
            let artifacts = kept(workspace, "artifacts", target)?;
            let executed = fuzz(&programs.join(target), &corpus, &artifacts)?;
            runs.fetch_add(executed, Ordering::Relaxed);
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| {
            worker.join().unwrap_or_else(|_| Err(anyhow!("a worker of the fuzz targets panicked")))
        })
    })?;
    Ok(Outcome::done(format!("{} targets, {} runs", names.len(), runs.into_inner())))
}

/// Lists the targets: every file in `fuzz_targets` is one.
fn names(package: &Path) -> anyhow::Result<Vec<String>> {
    let files = fs::read_dir(package.join("fuzz_targets"))
        .with_context(|| format!("no targets in {}", package.display()))?;
    let mut names = Vec::new();
    for file in files {
        let path = file?.path();
        names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

/// Creates `target/fuzz/<kind>/<target>`, where inputs are kept between runs: `corpus` for inputs that reach
/// new code, `artifacts` for inputs that fail.
fn kept(workspace: &Workspace, kind: &str, target: &str) -> anyhow::Result<PathBuf> {
    let dir = workspace.target().join("fuzz").join(kind).join(target);
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

/// Runs one target and returns the number of inputs that it was given.
fn fuzz(program: &Path, corpus: &Path, artifacts: &Path) -> anyhow::Result<u64> {
    let stats = corpus.with_extension("log");
    let mut fuzz = Command::new("sh");
    // libFuzzer reports on standard error.
    fuzz.args(["-c", "exec \"$@\" 2>&1", "sh"]).arg(program).arg(corpus);
    fuzz.arg(format!("-max_total_time={SECONDS}")).args([
        "-max_len=4096",
        "-rss_limit_mb=1024",
        "-timeout=5",
        "-print_final_stats=1",
    ]);
    // libFuzzer requires the directory to exist, and treats the prefix as one only with the slash.
    fuzz.arg(format!("-artifact_prefix={}/", artifacts.display()));
    let output = command::run(&mut fuzz)?;
    fs::write(&stats, &output).with_context(|| format!("cannot write {}", stats.display()))?;
    executed(&output)
        .with_context(|| format!("{} did not report its number of runs", program.display()))
}

/// Parses `stat::number_of_executed_units: 798487`.
fn executed(output: &str) -> Option<u64> {
    let line =
        output.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_runs_is_read_from_the_statistics() {
        let output = "Done 3 runs in 1 second(s)\nstat::number_of_executed_units: 798487\n";
        assert_eq!(executed(output), Some(798_487));
        assert_eq!(executed("Done"), None);
    }
}
