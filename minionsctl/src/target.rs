//! Whom a command is for.

use crate::client::Client;
use crate::config::Config;
use crate::failure::Failure;
use minions_api::VmName;
use std::path::{Path, PathBuf};

/// Where an agent is reached.
#[derive(Debug)]
pub(crate) enum Target {
    /// One VM's, through minionsd.
    Vm(Client, VmName),
    /// One agent, without it.
    Agent(PathBuf),
}

impl Target {
    /// Exactly one of the two must be named.
    pub(crate) fn new(
        config: &Config,
        socket: Option<&Path>,
        vm: Option<VmName>,
    ) -> Result<Self, Failure> {
        match (socket, vm) {
            (Some(socket), None) => Ok(Self::Agent(socket.to_owned())),
            (None, Some(vm)) => Ok(Self::Vm(Client::new(config)?, vm)),
            (Some(_), Some(_)) => {
                Err(Failure::Usage("--socket names the agent already; leave the VM out"))
            }
            (None, None) => Err(Failure::WHICH_VM),
        }
    }
}
