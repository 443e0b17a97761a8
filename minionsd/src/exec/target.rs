//! Location of a program.

use crate::agent::{AgentInstance, AgentRefusal, CallError, ExecSupport, Lane};
use crate::vm::Vm;
use minions_proto::Call;
use minions_proto::message::Feature;
use tokio::time::Instant;

/// Location of a program: a VM, and one instance (start) of its agent. The agent supports execs (feature `exec2`).
#[derive(Debug, Clone)]
pub(crate) struct ExecTarget {
    pub(crate) vm: Vm,
    pub(crate) instance: AgentInstance,
}

impl ExecTarget {
    /// Returns the target for existing programs of `vm`.
    ///
    /// # Errors
    ///
    /// [`AgentRefusal::TooOld`]: the agent does not support execs.
    pub(crate) async fn find(vm: &Vm, deadline: Instant) -> Result<Self, CallError> {
        match vm.client().exec_support(deadline).await? {
            ExecSupport::Objects(instance) => Ok(Self { vm: vm.clone(), instance }),
            ExecSupport::Plain { .. } => Err(too_old().into()),
        }
    }

    /// Sends a request about an existing program.
    ///
    /// # Errors
    ///
    /// As [`AgentClient::call`](crate::agent::AgentClient::call).
    pub(crate) async fn call<C: Call>(
        &self,
        call: &C,
        lane: Lane,
        deadline: Instant,
    ) -> Result<C::Reply, CallError> {
        self.vm.client().call(call, lane, deadline).await
    }
}

/// Returns the error for an agent without the feature `exec2`.
pub(super) fn too_old() -> AgentRefusal {
    AgentRefusal::too_old(Feature::Exec, &[])
}
