//! Target of a command: a VM through minionsd, or one agent directly.

use crate::agent_address::AgentAddress;
use crate::client::DaemonClient;
use crate::config::ClientConfig;
use crate::failure::Failure;
use minions_api::VmName;
use std::sync::Arc;

/// Route to an agent.
#[derive(Debug)]
pub(crate) enum Target {
    /// The agent of a VM, through minionsd.
    Vm(Arc<DaemonClient>, VmName),
    /// An agent, by the VM's socket, without minionsd.
    Agent(AgentAddress),
}

impl Target {
    /// Creates the target.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`] unless exactly one of `--socket` and `vm` is given.
    pub(crate) fn new(config: &ClientConfig, vm: Option<VmName>) -> Result<Self, Failure> {
        match (&config.agent, vm) {
            (Some(address), None) => Ok(Self::Agent(address.clone())),
            (None, Some(vm)) => Ok(Self::Vm(Arc::new(DaemonClient::new(config)?), vm)),
            (Some(_), Some(_)) => {
                Err(Failure::Usage("--socket already names the agent: leave the VM out"))
            }
            (None, None) => Err(Failure::WHICH_VM),
        }
    }
}
