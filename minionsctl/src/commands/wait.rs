//! `minionsctl wait VM`: waits until the VM is ready, also in another boot. Also the waits of `reboot --wait` and
//! `poweroff --wait`.

use super::context::Context;
use crate::client::{DaemonClient, vm_path};
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::Rows;
use minions_api::vm::{Vm, VmState};
use minions_api::{ErrorCode, VmName};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Default time limit, long enough for a VM to boot.
const DEFAULT_LIMIT: Duration = Duration::from_mins(1);

/// Default time limit if the guest must end first: systemd gives each service up to 90 s.
const DEFAULT_LIMIT_TO_END: Duration = Duration::from_mins(2);

/// Pause between two polls. minionsd answers from its own state, without asking the guest.
pub(super) const PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn run(
    context: &Context<'_>,
    client: &DaemonClient,
    name: &VmName,
    rebooted_since: Option<&str>,
) -> Result<ExitStatus, Failure> {
    let (vm, end) = match rebooted_since {
        None => {
            let vm = until_ready(context, client, name).await?;
            let end = format!("{} is ready", vm.name);
            (vm, end)
        }
        Some(boot_id) => {
            let vm = until_rebooted(client, name, boot_id, WaitLimit::to_end(context)).await?;
            let end = ready(&vm);
            (vm, end)
        }
    };
    context.printer.result(&vm, |_| Rows::new().row([end]))?;
    Ok(ExitStatus::Success)
}

/// Time limit of a wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct WaitLimit {
    within: Duration,
    deadline: Instant,
}

impl WaitLimit {
    /// Returns the limit for a guest that ends, starting now.
    pub(super) fn to_end(context: &Context<'_>) -> Self {
        Self::new(context.timeout.unwrap_or(DEFAULT_LIMIT_TO_END))
    }

    /// Returns the limit for a VM that starts, starting now.
    pub(super) fn of(context: &Context<'_>) -> Self {
        Self::new(context.timeout.unwrap_or(DEFAULT_LIMIT))
    }

    pub(super) fn within(self) -> Duration {
        self.within
    }

    /// Reports whether the limit passes within `pause`.
    pub(super) fn is_over_after(self, pause: Duration) -> bool {
        Instant::now() + pause > self.deadline
    }

    fn new(within: Duration) -> Self {
        Self { within, deadline: Instant::now() + within }
    }
}

/// Result of one poll.
pub(super) enum PollResult<T> {
    Done(T),
    /// Description of the state that was seen instead.
    Seen(String),
}

/// Polls until `judge` returns `Done`. Returns the state that was seen last if the limit passes. `patient` keeps polling
/// after transient failures of minionsd.
pub(super) async fn until<T>(
    client: &DaemonClient,
    name: &VmName,
    limit: WaitLimit,
    patient: bool,
    mut judge: impl FnMut(Option<Vm>) -> PollResult<T>,
) -> Result<Result<T, String>, Failure> {
    loop {
        let polled = match client.get::<Vm>(&vm_path(name, ""), Context::registry()).await {
            Ok(vm) => judge(Some(vm)),
            // The VM may still appear.
            Err(Failure::Problem(problem)) if problem.code == ErrorCode::VmNotFound => {
                match judge(None) {
                    PollResult::Seen(_) => PollResult::Seen(problem.detail),
                    done => done,
                }
            }
            Err(failure) if patient && failure.is_transient() => {
                PollResult::Seen(failure.to_string())
            }
            Err(failure) => return Err(failure),
        };
        let seen = match polled {
            PollResult::Done(done) => return Ok(Ok(done)),
            PollResult::Seen(seen) => seen,
        };
        if limit.is_over_after(PAUSE) {
            return Ok(Err(seen));
        }
        sleep(PAUSE).await;
    }
}

async fn until_ready(
    context: &Context<'_>,
    client: &DaemonClient,
    name: &VmName,
) -> Result<Vm, Failure> {
    let limit = WaitLimit::of(context);
    let judge = |vm: Option<Vm>| match vm {
        Some(vm) if vm.state == VmState::Ready => PollResult::Done(vm),
        vm => PollResult::Seen(seen(vm.as_ref())),
    };
    until(client, name, limit, false, judge).await?.map_err(Failure::NotReady)
}

/// Waits until the VM is ready in another boot than `boot_id`.
pub(super) async fn until_rebooted(
    client: &DaemonClient,
    name: &VmName,
    boot_id: &str,
    limit: WaitLimit,
) -> Result<Vm, Failure> {
    let judge = |vm: Option<Vm>| match vm {
        Some(vm) if vm.state == VmState::Ready => match boot_of(&vm) {
            Some(boot) if boot != boot_id => PollResult::Done(vm),
            Some(boot) => {
                PollResult::Seen(format!("{} is ready, still in the boot {boot}", vm.name))
            }
            None => {
                PollResult::Seen(format!("{} is ready, and its agent reports no boot_id", vm.name))
            }
        },
        vm => PollResult::Seen(seen(vm.as_ref())),
    };
    let waited = until(client, name, limit, true, judge).await?;
    waited.map_err(|seen| Failure::NotRebooted { within: limit.within, seen })
}

/// Waits until the guest has halted. Returns `None` if its VM is gone. `boot_id` is the boot that ends.
pub(super) async fn until_powered_off(
    client: &DaemonClient,
    name: &VmName,
    boot_id: Option<&str>,
    limit: WaitLimit,
) -> Result<Option<Vm>, Failure> {
    let judge = |vm: Option<Vm>| match vm {
        None => PollResult::Done(None),
        Some(vm) => {
            let halted = vm.reason.as_ref().and_then(|reason| reason.halted) == Some(true);
            let is_off = match vm.state {
                VmState::Stale => true,
                VmState::Unreachable => halted,
                // The VM was started again.
                VmState::Ready => {
                    boot_id.is_some() && boot_of(&vm).is_some_and(|boot| Some(boot) != boot_id)
                }
                VmState::Connecting => false,
            };
            if is_off { PollResult::Done(Some(vm)) } else { PollResult::Seen(seen(Some(&vm))) }
        }
    };
    let waited = until(client, name, limit, true, judge).await?;
    waited.map_err(|seen| Failure::NotPoweredOff { within: limit.within, seen })
}

fn boot_of(vm: &Vm) -> Option<&str> {
    vm.agent.as_ref().map(|agent| agent.boot_id.as_str())
}

/// Returns `web-1 is ready`, with the boot.
pub(super) fn ready(vm: &Vm) -> String {
    match boot_of(vm) {
        Some(boot) => format!("{} is ready (boot_id {boot})", vm.name),
        None => format!("{} is ready", vm.name),
    }
}

/// Returns the state of a VM and the reason for it.
pub(super) fn seen(vm: Option<&Vm>) -> String {
    let Some(vm) = vm else { return "no such VM".into() };
    let state = vm.state.as_str();
    match &vm.reason {
        Some(reason) => format!("{} is {state}: {}", vm.name, reason.message),
        None => format!("{} is {state}", vm.name),
    }
}
