//! Whom a command is for.

use crate::agent::AgentAddress;
use crate::client::Client;
use crate::config::Config;
use crate::failure::Failure;
use minions_api::VmName;

/// Where an agent is reached.
#[derive(Debug)]
pub(crate) enum Target {
    /// One VM's, through minionsd.
    Vm(Client, VmName),
    /// One agent, without it.
    Agent(AgentAddress),
}

impl Target {
    /// Exactly one of the two must be named.
    pub(crate) fn new(config: &Config, vm: Option<VmName>) -> Result<Self, Failure> {
        match (&config.agent, vm) {
            (Some(address), None) => Ok(Self::Agent(address.clone())),
            (None, Some(vm)) => Ok(Self::Vm(Client::new(config)?, vm)),
            (Some(_), Some(_)) => {
                Err(Failure::Usage("--socket names the agent already; leave the VM out"))
            }
            (None, None) => Err(Failure::WHICH_VM),
        }
    }
}
