//! Connections in a guest that minionsd hands over.

use super::daemon_client::{DaemonClient, vm_path};
use crate::failure::Failure;
use minions_api::VmName;
use minions_api::forward::ListenerId;
use reqwest::Url;

/// Connection that minionsd is to hand over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConnectionRequest {
    /// New connection to a target: `tcp:127.0.0.1:80`.
    Target(String),
    /// Connection that waits on a listener.
    Waiting {
        /// Id of the listener.
        listener: ListenerId,
        /// Number of the connection.
        connection: u64,
    },
}

impl ConnectionRequest {
    pub(super) fn url(&self, client: &DaemonClient, vm: &VmName) -> Result<Url, Failure> {
        match self {
            Self::Target(target) => client.url(&vm_path(vm, "/forward"), &[("target", target)]),
            Self::Waiting { listener, connection } => {
                let (listener, connection) = (listener.to_string(), connection.to_string());
                let query = [("listener", &*listener), ("connection", &*connection)];
                client.url(&vm_path(vm, "/forward/accept"), &query)
            }
        }
    }
}
