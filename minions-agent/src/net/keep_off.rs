//! Keeps the guest's own network services off the interfaces that the host configures.
//!
//! Runs before the first step, because NetworkManager would react to each step. A failure is only a warning in the
//! reply, because the change itself holds until that service acts.

use super::desired::DesiredNetwork;
use super::dns::SystemPaths;
use super::link::LinkIndex;
use super::network_manager::{self, LinkManagement};
use super::networkd;
use super::snapshot::NetworkSnapshot;
use crate::error_chain;
use std::io;

/// Interface whose addresses the change sets.
struct ConfiguredInterface {
    index: LinkIndex,
    name: String,
    management: LinkManagement,
}

/// Keeps the services off all interfaces whose addresses the change sets. Returns warnings.
pub(super) async fn run(
    desired: &DesiredNetwork,
    snapshot: &NetworkSnapshot,
    system: &SystemPaths,
) -> Vec<String> {
    let set = desired.links.iter().filter(|one| one.addresses.is_some());
    let all: Vec<_> = set
        .map(|one| {
            let state = snapshot.state_of(one.link.index);
            ConfiguredInterface {
                index: one.link.index,
                name: one.link.name.clone(),
                management: state.map(|state| state.network_manager.clone()).unwrap_or_default(),
            }
        })
        .collect();
    let system = system.clone();
    let done = crate::task::spawn_blocking(move || {
        all.iter().flat_map(|one| one.keep_off(&system)).collect::<Vec<_>>()
    });
    done.await.unwrap_or_else(|error| vec![error_chain(&error)])
}

impl ConfiguredInterface {
    fn keep_off(&self, system: &SystemPaths) -> Vec<String> {
        let Self { index, name, management } = self;
        let may_undo = |service: &str, failed: io::Result<()>| {
            let error = failed.err()?;
            Some(format!("{service} may undo the configuration of {name}: {}", error_chain(&error)))
        };
        let networkd = networkd::keep_off(&system.run, name);
        let snippet = network_manager::keep_off(system, name, *index);
        let running = match management {
            LinkManagement::Unmanaged => Ok(()),
            LinkManagement::External | LinkManagement::Managed(_) => network_manager::release(name),
            LinkManagement::Unknown => Err(io::Error::other("it runs, but nmcli cannot reach it")),
        };
        let warnings = [
            may_undo("systemd-networkd", networkd),
            may_undo("NetworkManager, when it starts again,", snippet),
            may_undo("NetworkManager", running),
        ];
        warnings.into_iter().flatten().collect()
    }
}
