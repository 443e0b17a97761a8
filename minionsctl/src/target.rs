//! Target of a command: a VM through minionsd, or one agent directly.

use crate::client::Client;
use crate::config::Config;
use crate::failure::Failure;
use minions_api::VmName;
use std::path::{Path, PathBuf};

/// Route to an agent.
#[derive(Debug)]
pub(crate) enum Target {
    /// The agent of a VM, through minionsd.
    Vm(Client, VmName),
    /// An agent, by the VM's socket, without minionsd.
    Agent(PathBuf),
}

impl Target {
    /// Creates the target.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`] unless exactly one of `socket` and `vm` is given.
    pub(crate) fn new(
        config: &Config,
        socket: Option<&Path>,
        vm: Option<VmName>,
    ) -> Result<Self, Failure> {
        match (socket, vm) {
            (Some(socket), None) => Ok(Self::Agent(socket.to_owned())),
            (None, Some(vm)) => Ok(Self::Vm(Client::new(config)?, vm)),
            (Some(_), Some(_)) => {
                Err(Failure::Usage("--socket already names the agent: leave the VM out"))
            }
            (None, None) => Err(Failure::WHICH_VM),
        }
    }
}
