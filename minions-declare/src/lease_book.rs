//! Leases, by address and by VM.

use minions_api::VmName;
use minions_api::pool::Lease;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// All leases. An address has at most one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaseBook {
    by_address: BTreeMap<IpAddr, Lease>,
    /// Sorted addresses. Lists, because a VM has few: a set takes ten times the memory.
    by_vm: BTreeMap<VmName, Vec<IpAddr>>,
}

impl LeaseBook {
    /// Adds or replaces the lease of an address.
    pub fn insert(&mut self, lease: Lease) {
        self.remove(lease.address);
        if let Some(vm) = &lease.vm {
            let addresses = self.by_vm.entry(vm.clone()).or_default();
            if let Err(place) = addresses.binary_search(&lease.address) {
                addresses.insert(place, lease.address);
            }
        }
        self.by_address.insert(lease.address, lease);
    }

    /// Removes the lease of an address.
    pub fn remove(&mut self, address: IpAddr) {
        let Some(vm) = self.by_address.remove(&address).and_then(|lease| lease.vm) else { return };
        if let Some(addresses) = self.by_vm.get_mut(&vm) {
            addresses.retain(|one| *one != address);
            if addresses.is_empty() {
                self.by_vm.remove(&vm);
            }
        }
    }

    /// Returns the lease of an address.
    #[must_use]
    pub fn get(&self, address: IpAddr) -> Option<&Lease> {
        self.by_address.get(&address)
    }

    /// Returns the leases of a VM, by address.
    pub fn of_vm(&self, vm: &VmName) -> impl Iterator<Item = &Lease> {
        let addresses = self.by_vm.get(vm).into_iter().flatten();
        addresses.filter_map(|address| self.by_address.get(address))
    }

    /// Returns all leases by address.
    pub fn iter(&self) -> impl Iterator<Item = &Lease> {
        self.by_address.values()
    }

    /// Returns the leases from one address to another.
    pub fn between(&self, first: IpAddr, last: IpAddr) -> impl Iterator<Item = &Lease> {
        self.by_address.range(first..=last).map(|(_, lease)| lease)
    }

    /// Returns the number of leases.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_address.len()
    }

    /// Reports whether there is no lease.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_address.is_empty()
    }
}
