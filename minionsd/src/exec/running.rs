//! The only way to start a program, on an agent of any version, and a program's events.

use super::driver::{DriverEvent, ExecDriver};
use super::error::ExecError;
use super::plain::PlainExec;
use super::plan::ExecPlan;
use super::resources::ExecResources;
use super::target::ExecTarget;
use super::target::too_old;
use crate::agent::{ExecSupport, Lane};
use crate::vm::Vm;
use minions_proto::message::{ExecAttached, ExecInfo, ExecInspect};
use std::time::Duration;
use tokio::time::Instant;

/// Default deadline for the start of a program that is not collected. It allows for a lost connection to be
/// re-established.
const START: Duration = Duration::from_secs(30);

/// Deadlines of a program.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExecDeadlines {
    /// Deadline for the start.
    pub(crate) start: Instant,
    /// Deadline for the end; `None` for none.
    pub(crate) end: Option<Instant>,
}

impl ExecDeadlines {
    /// Returns the deadlines of a program that must start, and end, within `patience`; or start within the default
    /// time.
    pub(crate) fn within(patience: Option<Duration>) -> Self {
        let now = Instant::now();
        Self {
            start: now + patience.unwrap_or(START),
            end: patience.map(|patience| now + patience),
        }
    }
}

/// A program that was started, or attached to.
#[derive(Debug)]
pub(crate) enum RunningExec {
    /// A program of an agent with the feature `exec2`.
    Object(Box<ExecDriver>),
    /// A program of an agent without it.
    Plain(PlainExec),
}

impl RunningExec {
    /// Starts a program. On an agent with the feature `exec2`, attaches instead if a program with the same id exists.
    ///
    /// When the future is dropped, the program is left.
    ///
    /// # Errors
    ///
    /// [`AgentRefusal::TooOld`](crate::agent::AgentRefusal::TooOld) names the plan's fields that the agent does not support. Otherwise the agent refused, or
    /// could not be reached; [`ExecError::may_have_executed`] is accurate for both.
    pub(crate) async fn open(
        execs: &ExecResources,
        vm: &Vm,
        plan: &ExecPlan,
        deadlines: ExecDeadlines,
    ) -> Result<Self, ExecError> {
        match vm.client().exec_support(deadlines.start).await? {
            ExecSupport::Objects(instance) => {
                let target = ExecTarget { vm: vm.clone(), instance };
                let driver = ExecDriver::start(execs, &target, plan, deadlines.start).await?;
                Ok(Self::Object(Box::new(driver)))
            }
            ExecSupport::Plain { limits } => {
                let exec = plan.plain(limits)?;
                let end = deadlines.end.unwrap_or_else(|| Instant::now() + plan.longest_call());
                let plain = PlainExec::start(vm.clone(), plan.id.clone(), exec, end).await?;
                Ok(Self::Plain(plain))
            }
        }
    }

    /// Returns the agent's description of the program when it was opened.
    pub(crate) fn attached(&self) -> &ExecAttached {
        match self {
            Self::Object(driver) => driver.attached(),
            Self::Plain(plain) => plain.attached(),
        }
    }

    /// Reports whether the agent measures the resources that the program uses.
    pub(crate) fn has_usage(&self) -> bool {
        matches!(self, Self::Object(_))
    }

    /// Returns the next event, as [`ExecDriver::next`].
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// As [`ExecDriver::next`].
    pub(crate) async fn next(&mut self) -> Result<DriverEvent, ExecError> {
        match self {
            Self::Object(driver) => {
                let turns = driver.turns();
                turns.take(driver.next()).await
            }
            Self::Plain(plain) => Ok(plain.next().await?),
        }
    }
}

/// Starts a program and leaves it running. Its input is sent in the background, because the caller does not wait until
/// the program has read it.
///
/// # Errors
///
/// As [`RunningExec::open`]; [`ExecError::Lost`] if the program was started and its state cannot be read.
pub(crate) async fn detach(
    execs: &ExecResources,
    vm: &Vm,
    plan: &ExecPlan,
    deadline: Instant,
) -> Result<ExecInfo, ExecError> {
    let deadlines = ExecDeadlines { start: deadline, end: Some(deadline) };
    let RunningExec::Object(driver) = RunningExec::open(execs, vm, plan, deadlines).await? else {
        // Plain agents do not support `detach`, so `open` refuses the plan.
        return Err(too_old().into());
    };
    let inspect = ExecInspect { id: driver.attached().id.clone(), wait_ms: None };
    let info = vm.client().call(&inspect, Lane::Quick, deadline).await.map_err(|error| {
        ExecError::lost(format!("it was started, but its state cannot be read: {error}"))
    })?;
    // Dropping the driver sends `leave`.
    let draining = execs.draining.clone();
    execs.tasks.spawn(async move {
        tokio::select! {
            () = driver.give_input() => {}
            () = draining.cancelled() => {}
        }
    });
    Ok(info)
}
