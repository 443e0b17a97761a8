//! Hooks: programs of the guest's owner that the agent runs before or after an event.
//!
//! All executable files of one directory are run one after the other, in the order of their names, as run-parts(8)
//! does: a name consists of letters, digits, `_` and `-`. So backups of editors and packages are not run.
//!
//! A hook runs only if other users cannot change it, and cannot make its path lead to another program. This is checked
//! directly before its start, because the hooks before it may have changed something.
//!
//! A hook runs in its own session and control group, as the agent's own user. If it has not ended at its deadline, it
//! is ended together with all processes that it started. A restore of the guest does not end it.

mod trusted_path;

use crate::boot_clock::milliseconds;
use crate::error_chain;
use crate::exec::Executor;
use crate::task::spawn_blocking;
use minions_proto::message::{ExecReply, ExecStart, Outcome};
use rustix::fs::{Access, access};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use trusted_path::is_trusted;

/// Most hooks in a directory.
const MAX_HOOKS: usize = 32;

/// Most characters of a hook's output in its report.
const MAX_OUTPUT: usize = 400;

/// Time after its deadline for a hook to end: the grace period between TERM and KILL, the wait for its processes after
/// that, and a reserve. Only a process in an uninterruptible sleep takes longer, and it may do so forever.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// Write permission for the group and for all users.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Handling of the hooks after one that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterFailure {
    /// Skips them.
    Stop,
    /// Runs them.
    Continue,
}

/// Hooks of one directory, and the way to run them.
#[derive(Debug, Clone)]
pub(crate) struct HookSettings {
    /// Directory of the hooks. If it is missing, there are none.
    pub(crate) directory: PathBuf,
    /// Time limit of each hook.
    pub(crate) deadline: Duration,
    /// Variables that a hook gets in addition to the agent's own.
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) after_failure: AfterFailure,
}

/// Result of one hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HookReport {
    /// Path of the hook.
    pub(crate) path: String,
    /// True if the hook exited with status 0.
    pub(crate) ok: bool,
    /// End of the hook, with the end of its standard output, or of its standard error if it failed. Written by the guest.
    pub(crate) detail: String,
    /// Milliseconds from start to exit, or to the failure to run it.
    pub(crate) duration_ms: u64,
}

/// Reason why no hook of a directory was run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HookError {
    #[error("failed to read {path:?}")]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "{path:?}, a directory above it, or the target of a symbolic link can be changed by users other than the agent's own: \
         make the agent's user the owner, and remove the write permission of the group and of others"
    )]
    Untrusted { path: PathBuf },
    #[error("{path:?} contains more than {MAX_HOOKS} hooks")]
    TooMany { path: PathBuf },
    #[error("{path:?} is not UTF-8")]
    NotText { path: PathBuf },
}

impl HookReport {
    /// Returns the file name of the hook.
    pub(crate) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

/// Runs the hooks of a directory and returns a report of each that was run, or that must not be run. Otherwise as
/// [`run_each`].
pub(crate) async fn run(
    executor: &Executor,
    settings: &HookSettings,
    stop: watch::Receiver<bool>,
) -> Result<Vec<HookReport>, HookError> {
    let mut reports = Vec::new();
    run_each(executor, settings, stop, |report| reports.push(report)).await?;
    Ok(reports)
}

/// Runs the hooks of a directory. Calls `ended` after each that was run, or that must not be run.
///
/// If `stop` becomes true, the hook that runs is ended, and its end is waited for; no other is started. Dropping the future
/// also ends the hook, but does not wait.
///
/// # Errors
///
/// [`HookError`] if the directory cannot be used; no hook was run then.
pub(crate) async fn run_each(
    executor: &Executor,
    settings: &HookSettings,
    stop: watch::Receiver<bool>,
    mut ended: impl FnMut(HookReport),
) -> Result<(), HookError> {
    let directory = settings.directory.clone();
    let found = spawn_blocking(move || find(&directory)).await;
    let failed = |error| HookError::Read {
        path: settings.directory.clone(),
        source: io::Error::other(error),
    };
    for path in found.map_err(failed)?? {
        if *stop.borrow() {
            break;
        }
        let judged = PathBuf::from(&path);
        let report = match spawn_blocking(move || judge(judged)).await.map_err(failed)? {
            HookJudgement::NoProgram => continue,
            HookJudgement::Trusted => settings.run_one(executor, path, stop.clone()).await,
            HookJudgement::Refused(error) => {
                HookReport { path, ok: false, detail: error_chain(&error), duration_ms: 0 }
            }
        };
        if !report.ok {
            tracing::warn!(hook = report.path, detail = report.detail, "hook failed");
        }
        let stops = !report.ok && settings.after_failure == AfterFailure::Stop;
        ended(report);
        if stops {
            break;
        }
    }
    Ok(())
}

impl HookSettings {
    async fn run_one(
        &self,
        executor: &Executor,
        path: String,
        stop: watch::Receiver<bool>,
    ) -> HookReport {
        let (command, env) = (path, self.environment.clone());
        let start = ExecStart { command, env, ..ExecStart::default() };
        run_limited(executor, start, self.deadline, stop).await
    }
}

/// Runs a program of the guest as hooks are run, and returns its report.
pub(crate) async fn run_program(
    executor: &Executor,
    command: &str,
    args: Vec<String>,
    deadline: Duration,
) -> HookReport {
    let start = ExecStart { command: command.to_owned(), args, ..ExecStart::default() };
    // No order stops it.
    let (_stopper, stop) = watch::channel(false);
    run_limited(executor, start, deadline, stop).await
}

async fn run_limited(
    executor: &Executor,
    start: ExecStart,
    deadline: Duration,
    stop: watch::Receiver<bool>,
) -> HookReport {
    let (path, begun) = (start.command.clone(), Instant::now());
    let failed = |detail| HookReport {
        path: path.clone(),
        ok: false,
        detail,
        duration_ms: milliseconds(begun.elapsed()),
    };
    let start = ExecStart { timeout_ms: Some(milliseconds(deadline).max(1)), ..start };
    let limit = deadline.saturating_add(KILL_PATIENCE);
    // Dropping the future leaves the program, which keeps its slot: programs that cannot be killed do not add up.
    match timeout(limit, executor.run_hook(start, stop)).await {
        Ok(Ok(reply)) => HookReport {
            path,
            ok: reply.exit_code == 0,
            detail: described(&reply, deadline),
            duration_ms: reply.duration_ms.unwrap_or(0),
        },
        Ok(Err(error)) => failed(error_chain(&error)),
        Err(_) => failed(format!(
            "did not end at its deadline of {} ms, and could not be killed",
            deadline.as_millis()
        )),
    }
}

/// Returns the end of a hook in words, with the end of its standard output, or of its standard error if it failed.
fn described(reply: &ExecReply, deadline: Duration) -> String {
    let end = match &reply.outcome {
        Some(Outcome::TimedOut) => {
            format!("was ended at its deadline of {} ms", deadline.as_millis())
        }
        Some(Outcome::Signaled { signal, .. }) => format!("was ended by signal {signal}"),
        _ => format!("exited with status {}", reply.exit_code),
    };
    let is_silent = reply.stderr.trim_end().is_empty();
    let output = if reply.exit_code == 0 || is_silent { &reply.stdout } else { &reply.stderr };
    let output = output.trim_end();
    if output.is_empty() {
        return end;
    }
    let skipped = output.chars().count().saturating_sub(MAX_OUTPUT);
    let output: String = output.chars().skip(skipped).collect();
    format!("{end}: {output}")
}

/// Result of the check of a file directly before its start.
#[derive(Debug)]
enum HookJudgement {
    Trusted,
    /// The file is not executable, or has been removed.
    NoProgram,
    Refused(HookError),
}

/// Returns the files of a directory that run-parts(8) would run if they are executable, in the order of their names.
fn find(directory: &Path) -> Result<Vec<String>, HookError> {
    let read = |source| HookError::Read { path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(read)?,
    };
    if !is_trusted(directory).map_err(read)? {
        return Err(HookError::Untrusted { path: directory.to_owned() });
    }
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry.map_err(read)?;
        if !is_hook_name(entry.file_name().as_encoded_bytes()) {
            continue;
        }
        if paths.len() == MAX_HOOKS {
            return Err(HookError::TooMany { path: directory.to_owned() });
        }
        paths.push(entry.path());
    }
    paths.sort_unstable();
    let text = |path: PathBuf| path.into_os_string().into_string();
    let texts = paths.into_iter().map(text).collect::<Result<_, _>>();
    texts.map_err(|path| HookError::NotText { path: path.into() })
}

fn judge(path: PathBuf) -> HookJudgement {
    // A link without a target, or a file that was removed just now, is no program.
    let is_file = fs::metadata(&path).is_ok_and(|metadata| metadata.is_file());
    if !is_file || access(&path, Access::EXEC_OK).is_err() {
        return HookJudgement::NoProgram;
    }
    match is_trusted(&path) {
        Ok(true) => HookJudgement::Trusted,
        Ok(false) => HookJudgement::Refused(HookError::Untrusted { path }),
        Err(source) => HookJudgement::Refused(HookError::Read { path, source }),
    }
}

/// Reports whether run-parts(8) runs a file of this name.
fn is_hook_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(byte))
}

#[cfg(test)]
mod tests;
