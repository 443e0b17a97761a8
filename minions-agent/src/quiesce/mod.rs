//! Quiesce: brings the guest's file systems into a consistent state for a snapshot, and keeps them so for a lease.
//!
//! ```text
//!            hooks       sync, FIFREEZE        reply
//!   idle ──▶ preparing ─▶ freezing ──────────▶ quiesced ──▶ thawed ──▶ thaw hooks ──▶ idle
//!               │ failed      │ failed            ▲  thaw request, end of the lease,    ▲
//!               └─────────────┴───────────────────┼─ or the keeper has ended ───────────┘
//!                                                 └─ until then, only health, status and thaw are answered
//! ```
//!
//! One task owns a quiesce from its hooks to its end. A thaw only needs descriptors that are open already and one system
//! call for each: it starts no process and writes no byte, because the write could wait for the thaw.
//!
//! Who thaws if the agent is killed: the [`keeper`], a process of its own. The thaw hooks remain to be run by the next
//! agent (`marker`), which also thaws the file systems if the keeper was killed too.

mod error;
mod event_hooks;
mod freezing;
mod frozen_set;
pub mod keeper;
mod leftover;
mod marker;
mod mounts;
mod requests;
mod task;

pub(crate) use error::QuiesceError;

use crate::boot_clock::{self, milliseconds};
use crate::exec::Executor;
use crate::identity;
use crate::lock::lock;
use error::QuiesceFailure;
use marker::QuiesceMarker;
use minions_proto::message::{Quiesce, QuiesceLease, Quiesced, Thaw, Thawed};
use minions_proto::{AgentError, ErrorCode, Invalid, Request};
use requests::{QuiesceRequests, ThawOrder};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use task::QuiesceTask;
use tokio::sync::{mpsc, oneshot};

/// Most thaw requests that wait for the end of one quiesce.
const MAX_ORDERS: usize = 8;

/// Settings of [`QuiesceControl`].
#[derive(Debug)]
pub(crate) struct QuiesceSettings {
    /// Directory with the directories of the hooks: `/etc/minions`.
    pub(crate) hook_dir: PathBuf,
    /// Directory for state that lasts until the next boot.
    pub(crate) run_dir: PathBuf,
    /// Program of the keeper: the agent's own.
    pub(crate) program: PathBuf,
    /// True if the file systems of this machine may be frozen.
    pub(crate) freezes: bool,
}

/// Quiesces and thaws the guest.
#[derive(Debug, Clone)]
pub(crate) struct QuiesceControl {
    shared: Arc<QuiesceState>,
}

#[derive(Debug)]
struct QuiesceState {
    settings: QuiesceSettings,
    executor: Executor,
    marker: QuiesceMarker,
    stage: Mutex<QuiesceStage>,
}

#[derive(Debug, Default)]
struct QuiesceStage {
    active: Option<ActiveQuiesce>,
    /// Last quiesce that has ended, for messages.
    ended: Option<EndedQuiesce>,
}

#[derive(Debug)]
struct ActiveQuiesce {
    id: String,
    orders: mpsc::Sender<ThawOrder>,
    phase: QuiescePhase,
    /// Steps that wait in the kernel although the quiesce has ended, if any.
    waits_for: String,
}

/// Part of a quiesce that is in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum QuiescePhase {
    /// The freeze hooks run, or the mount points are opened.
    Preparing,
    /// Other requests are refused until the end of the lease on the boot clock.
    Quiesced { until: Duration },
    /// A thaw request has ended the quiesce; the thaw hooks run. Repetitions of the request wait for the same reply.
    Thawed,
    /// The quiesce has ended for another reason, or all of its requests have been answered.
    Over,
}

#[derive(Debug)]
struct EndedQuiesce {
    id: String,
    /// Continuation of "the quiesce …".
    how: String,
    at: Duration,
    /// Reply to the thaw that ended it. A caller that lost the reply can request it again by the id.
    reply: Option<Thawed>,
}

impl QuiesceControl {
    /// Completes what a previous agent has left undone, in the background.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime.
    pub(crate) fn new(settings: QuiesceSettings, executor: Executor) -> Self {
        let marker = QuiesceMarker::new(&settings.run_dir, &settings.hook_dir);
        let stage = Mutex::default();
        let quiescer =
            Self { shared: Arc::new(QuiesceState { settings, executor, marker, stage }) };
        if quiescer.shared.marker.is_left() {
            tracing::warn!("ending the quiesce of the previous agent");
            // Registered before the first request: the undoing of the old quiesce must not undo a new one.
            let registered = RegisteredQuiesce::of_leftover(&quiescer.shared);
            crate::task::spawn(leftover::end(registered));
        }
        quiescer
    }

    /// Quiesces the guest.
    ///
    /// If the future is dropped, the guest is thawed.
    pub(crate) async fn quiesce(&self, call: Quiesce) -> Result<Quiesced, QuiesceError> {
        let lease = Duration::from_millis(call.ttl_ms()?);
        if call.freeze_fs && !self.shared.settings.freezes {
            let reason = "needs an agent that serves VSOCK: this agent serves a socket of its own machine, whose file \
                          systems it does not freeze";
            return Err(Invalid::new("freeze_fs", reason).into());
        }
        let (sender, orders) = mpsc::channel(MAX_ORDERS);
        let id = self.begin(sender)?;
        let (begun, outcome) = oneshot::channel();
        let registered = RegisteredQuiesce(Arc::clone(&self.shared));
        let requests = QuiesceRequests::new(begun, orders);
        crate::task::spawn(QuiesceTask::new(registered, id, call, lease).run(requests));
        outcome.await.unwrap_or(Err(QuiesceFailure::Interrupted.into()))
    }

    /// Registers a quiesce and returns its id.
    fn begin(&self, orders: mpsc::Sender<ThawOrder>) -> Result<String, QuiesceError> {
        let mut stage = lock(&self.shared.stage);
        if let Some(active) = &stage.active {
            let waits_for = active.waits_for.clone();
            return Err(active.left().map_or(QuiesceError::Changing { waits_for }, |left| {
                QuiesceError::AlreadyQuiesced { left }
            }));
        }
        let id = format!("quiesce-{}", identity::random_uuid().map_err(QuiesceFailure::Id)?);
        let (phase, waits_for) = (QuiescePhase::Preparing, String::new());
        stage.active = Some(ActiveQuiesce { id: id.clone(), orders, phase, waits_for });
        Ok(id)
    }

    /// Ends a quiesce, and returns when its thaw hooks have run. Dropping the future does not stop that. A request with the
    /// id of the last quiesce gets the same reply, marked as a repetition, if that quiesce ended by another request.
    pub(crate) async fn thaw(&self, call: Thaw) -> Result<Thawed, QuiesceError> {
        let (order, done) = oneshot::channel();
        {
            let stage = lock(&self.shared.stage);
            let wanted = |active: &&ActiveQuiesce| {
                active.phase != QuiescePhase::Over
                    && call.id.as_ref().is_none_or(|id| *id == active.id)
            };
            match stage.active.as_ref().filter(wanted) {
                Some(active) => {
                    let full = |_| QuiesceError::Changing { waits_for: String::new() };
                    active.orders.try_send(order).map_err(full)?;
                }
                None => return stage.ended_by(&call).ok_or_else(|| stage.not_quiesced()),
            }
        }
        done.await.map_err(|_| lock(&self.shared.stage).not_quiesced())
    }

    /// Returns the current lease; `None` if the guest is not quiesced.
    pub(crate) fn lease(&self) -> Option<QuiesceLease> {
        let stage = lock(&self.shared.stage);
        let active = stage.active.as_ref()?;
        Some(QuiesceLease { id: active.id.clone(), lease_ms: milliseconds(active.left()?) })
    }

    /// Returns the refusal of a request that is not answered while the guest is quiesced.
    pub(crate) fn refusal(&self, request: &Request) -> Option<AgentError> {
        // A second quiesce is refused with a message of its own.
        if let Request::HealthCheck(_)
        | Request::TokenCheck(_)
        | Request::Restore(_)
        | Request::ReportStatus(_)
        | Request::Quiesce(_)
        | Request::Thaw(_) = request
        {
            return None;
        }
        let left = self.lease()?.lease_ms;
        let message = format!(
            "the guest is quiesced, for at most {left} ms more: until then, only health, status and thaw are answered"
        );
        Some(AgentError::new(ErrorCode::Quiesced, message))
    }
}

impl ActiveQuiesce {
    /// Returns the time until the end of the lease, while other requests are refused. No request is refused after the
    /// lease, however long the thaw takes.
    fn left(&self) -> Option<Duration> {
        let QuiescePhase::Quiesced { until } = self.phase else { return None };
        until.checked_sub(boot_clock::now()).filter(|left| !left.is_zero())
    }
}

/// Registration of a quiesce, which ends when this value is dropped, even by a panic.
#[derive(Debug)]
struct RegisteredQuiesce(Arc<QuiesceState>);

impl RegisteredQuiesce {
    /// Registers the end of a previous agent's quiesce.
    fn of_leftover(shared: &Arc<QuiesceState>) -> Self {
        let (orders, _) = mpsc::channel(1);
        let (phase, waits_for) = (QuiescePhase::Over, String::new());
        let active = ActiveQuiesce { id: "leftover".into(), orders, phase, waits_for };
        lock(&shared.stage).active = Some(active);
        Self(Arc::clone(shared))
    }
}

impl Drop for RegisteredQuiesce {
    fn drop(&mut self) {
        lock(&self.0.stage).active = None;
    }
}

impl QuiesceStage {
    /// Returns the reply to an earlier thaw with the same id, marked as a repetition.
    fn ended_by(&self, call: &Thaw) -> Option<Thawed> {
        let ended = self.ended.as_ref().filter(|ended| call.id.as_ref() == Some(&ended.id))?;
        Some(Thawed { already: true, ..ended.reply.clone()? })
    }

    fn not_quiesced(&self) -> QuiesceError {
        let last = self.ended.as_ref().map(|EndedQuiesce { id, how, at, .. }| {
            let seconds = boot_clock::now().saturating_sub(*at).as_secs();
            format!(": {id} {how} {seconds} s ago")
        });
        QuiesceError::NotQuiesced(last.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::ProgramGroups;
    use crate::protection::ProgramDefaults;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use tempfile::TempDir;

    /// Hooks of which the first fails, so that no step after them is reached: a test must not freeze its machine.
    fn failing_hooks() -> TempDir {
        let hooks = tempfile::tempdir().unwrap();
        let hook = hooks.path().join("freeze.d/10-fails");
        fs::create_dir_all(hook.parent().unwrap()).unwrap();
        fs::write(&hook, "#!/bin/sh\nexit 1\n").unwrap();
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
        hooks
    }

    fn control(hooks: &TempDir, run_dir: &Path) -> QuiesceControl {
        let group = ProgramGroups::Below(format!("quiesce-{}", std::process::id()));
        let minute = Duration::from_secs(60);
        let executor = Executor::new(minute, None, ProgramDefaults::default(), group);
        let (hook_dir, run_dir) = (hooks.path().to_owned(), run_dir.to_owned());
        let settings =
            QuiesceSettings { hook_dir, run_dir, program: "/nonexistent".into(), freezes: true };
        QuiesceControl::new(settings, executor)
    }

    fn begin(control: &QuiesceControl) -> Result<String, QuiesceError> {
        control.begin(mpsc::channel(1).0)
    }

    fn set_phase(control: &QuiesceControl, phase: QuiescePhase) {
        lock(&control.shared.stage).active.as_mut().unwrap().phase = phase;
    }

    #[tokio::test]
    async fn nothing_is_frozen_if_the_next_agent_would_not_know_of_it() {
        let hooks = failing_hooks();
        let step_with = async |run_dir: &Path| {
            let call = Quiesce { freeze_fs: true, ..Quiesce::default() };
            AgentError::from(control(&hooks, run_dir).quiesce(call).await.unwrap_err()).step
        };
        let file = hooks.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(step_with(&file).await.as_deref(), Some("keeper"));
        assert_eq!(step_with(hooks.path()).await.as_deref(), Some("hooks"));
    }

    #[tokio::test]
    async fn no_request_is_refused_after_the_lease_and_each_quiesce_has_a_random_id() {
        let hooks = failing_hooks();
        let control = control(&hooks, hooks.path());
        let id = begin(&control).unwrap();
        assert_eq!(id.len(), "quiesce-".len() + 36, "{id}");
        let now = boot_clock::now();
        let minute = Duration::from_secs(60);
        set_phase(&control, QuiescePhase::Quiesced { until: now + minute });
        assert!(control.lease().is_some());
        assert!(matches!(begin(&control), Err(QuiesceError::AlreadyQuiesced { .. })));
        // The thaw takes longer than the lease.
        set_phase(&control, QuiescePhase::Quiesced { until: now });
        assert_eq!(control.lease(), None);
        assert!(matches!(begin(&control), Err(QuiesceError::Changing { .. })));
        lock(&control.shared.stage).active = None;
        assert_ne!(begin(&control).unwrap(), id);
    }

    #[tokio::test]
    async fn a_step_that_waits_in_the_kernel_is_named_to_the_next_requester() {
        let hooks = failing_hooks();
        let control = control(&hooks, hooks.path());
        begin(&control).unwrap();
        let active = |active: &mut ActiveQuiesce| {
            active.phase = QuiescePhase::Over;
            active.waits_for = "the freeze of /data (ext4)".into();
        };
        active(lock(&control.shared.stage).active.as_mut().unwrap());
        let error = begin(&control).unwrap_err().to_string();
        assert!(error.contains("(the freeze of /data (ext4) has not ended yet)"), "{error}");
    }
}
