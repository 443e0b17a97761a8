//! Hooks that run before the freeze and after the thaw.

use super::QuiesceState;
use crate::error_chain;
use crate::hooks::{self, AfterFailure, HookError, HookReport, HookSettings};
use minions_proto::message::HookRun;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// Time limit of one hook.
const HOOK_DEADLINE: Duration = Duration::from_secs(10);

/// Time limit of all hooks of one directory together.
pub(super) const HOOKS_DEADLINE: Duration = Duration::from_secs(60);

/// Time for a hook to end after the order: the grace period between TERM and KILL, and time to be killed. Only a hook in
/// an uninterruptible sleep takes longer.
const END_DEADLINE: Duration = Duration::from_secs(5);

/// Event after which the hooks are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HookEvent {
    Freeze,
    Thaw,
}

/// Reason why not all hooks of a directory were run.
#[derive(Debug)]
pub(super) enum HooksNotRun<R> {
    Unusable(HookError),
    Slow,
    Stopped(R),
}

impl HookEvent {
    pub(super) const ALL: [Self; 2] = [Self::Freeze, Self::Thaw];

    fn name(self) -> &'static str {
        match self {
            Self::Freeze => "freeze",
            Self::Thaw => "thaw",
        }
    }

    /// Returns the directory of the hooks.
    pub(super) fn directory(self, shared: &QuiesceState) -> PathBuf {
        shared.settings.hook_dir.join(format!("{}.d", self.name()))
    }

    fn settings(self, shared: &QuiesceState) -> HookSettings {
        HookSettings {
            directory: self.directory(shared),
            deadline: HOOK_DEADLINE,
            environment: [("MINIONS_EVENT".to_owned(), self.name().to_owned())].into(),
            after_failure: match self {
                Self::Freeze => AfterFailure::Stop,
                Self::Thaw => AfterFailure::Continue,
            },
        }
    }
}

/// Runs the hooks of an event, until `stopped` is ready. When this function returns, the hook that ran has ended: hooks of
/// the next event must not run at the same time.
pub(super) async fn run<R>(
    shared: &QuiesceState,
    event: HookEvent,
    stopped: impl Future<Output = R>,
) -> Result<Vec<HookReport>, HooksNotRun<R>> {
    let settings = event.settings(shared);
    let (stopper, stop) = watch::channel(false);
    let hooks = hooks::run(&shared.executor, &settings, stop);
    tokio::pin!(hooks);
    let reason = tokio::select! {
        reports = &mut hooks => return reports.map_err(HooksNotRun::Unusable),
        reason = stopped => HooksNotRun::Stopped(reason),
        () = sleep(HOOKS_DEADLINE) => HooksNotRun::Slow,
    };
    stopper.send_replace(true);
    if timeout(END_DEADLINE, hooks).await.is_err() {
        tracing::warn!(directory = ?settings.directory, "a hook was killed, but has not ended yet");
    }
    Err(reason)
}

/// Runs the thaw hooks; a failure of one does not stop the others.
pub(super) async fn run_after(shared: &QuiesceState) -> Vec<HookRun> {
    let detail = match run(shared, HookEvent::Thaw, std::future::pending::<()>()).await {
        Ok(reports) => return reports.into_iter().map(on_wire).collect(),
        Err(HooksNotRun::Unusable(error)) => error_chain(&error),
        Err(HooksNotRun::Slow | HooksNotRun::Stopped(())) => {
            format!("did not end within {} s together", HOOKS_DEADLINE.as_secs())
        }
    };
    let directory = HookEvent::Thaw.directory(shared);
    tracing::warn!(?directory, detail, "hooks failed");
    vec![HookRun { path: directory.display().to_string(), ok: false, detail, duration_ms: 0 }]
}

pub(super) fn on_wire(report: HookReport) -> HookRun {
    let HookReport { path, ok, detail, duration_ms } = report;
    HookRun { path, ok, detail, duration_ms }
}
