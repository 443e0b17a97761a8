//! Location of a program.

use crate::agent::{AgentRefusal, CallError, ExecSupport, Instance, Lane};
use crate::vm::Vm;
use minions_proto::Call;
use minions_proto::message::Feature;
use tokio::time::Instant;

/// Location of a program: a VM, and one instance (start) of its agent. The agent supports execs (feature `exec2`).
#[derive(Debug, Clone)]
pub(crate) struct ExecTarget {
    pub(crate) vm: Vm,
    pub(crate) instance: Instance,
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

    /// Returns the target for a new program that the agent runs for an operation with this feature. The agent may be one
    /// that runs no other programs.
    ///
    /// # Errors
    ///
    /// [`AgentRefusal`]: the agent does not support the feature, or was started without it.
    pub(crate) async fn with_feature(
        vm: &Vm,
        feature: Feature,
        deadline: Instant,
    ) -> Result<Self, CallError> {
        vm.client().require(feature, &[], deadline).await?;
        let instance = vm.client().instance().ok_or_else(|| AgentRefusal::too_old(feature, &[]))?;
        Ok(Self { vm: vm.clone(), instance })
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
