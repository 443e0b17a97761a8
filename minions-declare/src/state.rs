//! Declared state: pools, declarations and leases.

use crate::address_pool::{AddressPool, number};
use crate::declaration_set::{DeclarationSet, StoredDeclaration};
use crate::effective::{EffectiveConfig, LeaseNeed};
use crate::free_addresses::FreeAddresses;
use crate::lease_book::LeaseBook;
use crate::network::network_request;
use minions_api::VmName;
use minions_api::network::NetworkRequest;
use minions_api::pool::{Lease, LeaseKind, PoolStatus};
use minions_proto::Invalid;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// A pool with its revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPool {
    /// The pool.
    pub pool: AddressPool,
    /// Revision in which it was last changed.
    pub revision: u64,
}

/// Pools by name.
pub type Pools = BTreeMap<String, Arc<StoredPool>>;

/// Change of one row of the declared state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Creates or replaces a pool.
    PutPool(Arc<StoredPool>),
    /// Removes a pool.
    RemovePool(String),
    /// Creates or replaces a declaration. Shared with the state, because there may be thousands.
    PutDeclaration(Arc<StoredDeclaration>),
    /// Removes a declaration.
    RemoveDeclaration(String),
    /// Creates or replaces the lease of an address.
    PutLease(Lease),
    /// Removes the lease of an address.
    RemoveLease(IpAddr),
}

/// Changes that are made together or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The changes. Empty: the state is already as requested.
    pub changes: Vec<Change>,
    /// Revision of the state after them.
    pub revision: u64,
}

/// Pools, declarations and leases. Only [`commit`](Self::commit) changes it.
#[derive(Debug, Clone, Default)]
pub struct DeclaredState {
    pub(crate) pools: Pools,
    pub(crate) declarations: DeclarationSet,
    pub(crate) leases: LeaseBook,
    /// Free addresses of each pool.
    pub(crate) free: BTreeMap<String, FreeAddresses>,
    pub(crate) revision: u64,
}

impl DeclaredState {
    /// Applies a plan that was made for this state.
    pub fn commit(&mut self, plan: &Plan) {
        let mut changed = BTreeSet::new();
        for change in &plan.changes {
            match change {
                Change::PutPool(stored) => {
                    let name = stored.pool.name().to_owned();
                    changed.insert(stored.pool.subnet_ends());
                    let before = self.pools.insert(name, Arc::clone(stored));
                    changed.extend(before.map(|before| before.pool.subnet_ends()));
                }
                Change::RemovePool(name) => {
                    let before = self.pools.remove(name);
                    changed.extend(before.map(|before| before.pool.subnet_ends()));
                    self.free.remove(name);
                }
                Change::PutDeclaration(stored) => self.declarations.insert(Arc::clone(stored)),
                Change::RemoveDeclaration(name) => self.declarations.remove(name),
                Change::PutLease(lease) => {
                    self.take(lease.address);
                    self.leases.insert(lease.clone());
                }
                Change::RemoveLease(address) => {
                    self.leases.remove(*address);
                    self.give_back(*address);
                }
            }
        }
        self.count_free(&changed);
        self.revision = self.revision.max(plan.revision);
    }

    /// Computes the free addresses of the pools with these subnets.
    fn count_free(&mut self, subnets: &BTreeSet<(IpAddr, IpAddr)>) {
        let is_changed = |stored: &&Arc<StoredPool>| subnets.contains(&stored.pool.subnet_ends());
        let changed: Vec<_> = self.pools.values().filter(is_changed).cloned().collect();
        for stored in changed {
            let pool = &stored.pool;
            let mut free = pool.all_addresses();
            for other in self.pools.values().filter(|other| pool.has_subnet_of(&other.pool)) {
                other.pool.remove_kept(&mut free);
            }
            let (first, last) = pool.range_ends();
            for lease in self.leases.between(first, last) {
                let taken = number(lease.address);
                free.remove(taken, taken);
            }
            self.free.insert(pool.name().to_owned(), free);
        }
    }

    fn take(&mut self, address: IpAddr) {
        for (name, free) in &mut self.free {
            if self.pools.get(name).is_some_and(|stored| stored.pool.contains(address)) {
                free.remove(number(address), number(address));
            }
        }
    }

    fn give_back(&mut self, address: IpAddr) {
        let is_kept = self.pools.values().any(|stored| stored.pool.keeps(address));
        for (name, free) in self.free.iter_mut().filter(|_| !is_kept) {
            if self.pools.get(name).is_some_and(|stored| stored.pool.is_in_range(address)) {
                free.insert(number(address));
            }
        }
    }

    /// Returns the revision of the state: it grows with each change of a pool or declaration.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Returns the pools.
    #[must_use]
    pub fn pools(&self) -> &Pools {
        &self.pools
    }

    /// Returns the declarations.
    #[must_use]
    pub fn declarations(&self) -> &DeclarationSet {
        &self.declarations
    }

    /// Returns the leases.
    #[must_use]
    pub fn leases(&self) -> &LeaseBook {
        &self.leases
    }

    /// Returns the leases in the subnet of a pool.
    pub fn leases_in<'a>(&'a self, pool: &'a AddressPool) -> impl Iterator<Item = &'a Lease> {
        let (first, last) = pool.subnet_ends();
        self.leases.between(first, last)
    }

    /// Returns the figures of a pool.
    #[must_use]
    pub fn pool_status(&self, stored: &StoredPool) -> PoolStatus {
        let free = self.free.get(stored.pool.name()).map_or(0, |free| {
            let fixed = self.declarations.fixed();
            let kept =
                fixed.filter(|one| stored.pool.is_in_range(*one) && free.contains(number(*one)));
            free.count().saturating_sub(kept.count() as u64)
        });
        let leased =
            self.leases_in(&stored.pool).filter(|lease| stored.pool.is_in_range(lease.address));
        PoolStatus {
            pool: stored.pool.declared().clone(),
            revision: stored.revision,
            leased: leased.count() as u64,
            free,
        }
    }

    /// Merges the declarations that match a VM.
    #[must_use]
    pub fn effective(&self, vm: &VmName) -> EffectiveConfig {
        EffectiveConfig::of(vm, &self.declarations)
    }

    /// Returns the highest revision of the VM's declarations and of their pools.
    #[must_use]
    pub fn generation(&self, config: &EffectiveConfig) -> u64 {
        let pools = config.needs().into_iter().filter_map(|need| match need {
            LeaseNeed::Pool { pool, .. } => Some(self.pools.get(&pool)?.revision),
            LeaseNeed::Fixed { .. } => None,
        });
        pools.fold(config.revision, u64::max)
    }

    /// Returns the VM's lease for a need. A reservation has precedence over an address that the pool chose.
    #[must_use]
    pub fn lease_for(&self, vm: &VmName, need: &LeaseNeed) -> Option<&Lease> {
        match need {
            LeaseNeed::Fixed { address, .. } => {
                let is_own = |lease: &&Lease| {
                    lease.vm.as_ref() == Some(vm) && lease.kind != LeaseKind::Duplicate
                };
                self.leases.get(*address).filter(is_own)
            }
            LeaseNeed::Pool { interface, pool } => {
                let pool = &self.pools.get(pool)?.pool;
                let fits = |lease: &&Lease| match lease.kind {
                    LeaseKind::Static | LeaseKind::Duplicate => false,
                    LeaseKind::Reserved => pool.contains(lease.address),
                    LeaseKind::Pool => pool.is_in_range(lease.address),
                };
                let own = self.leases.of_vm(vm).filter(|lease| lease.interface == *interface);
                own.filter(fits)
                    .min_by_key(|lease| (lease.kind != LeaseKind::Reserved, lease.address))
            }
        }
    }

    /// Builds the request for a VM's agent; `None` if there is nothing to configure.
    ///
    /// # Errors
    ///
    /// [`Invalid`] if declarations contradict each other, or if an address is still to be leased.
    pub fn network_request(
        &self,
        config: &EffectiveConfig,
    ) -> Result<Option<NetworkRequest>, Invalid> {
        let leased = |need: &LeaseNeed| self.lease_for(&config.vm, need).map(|lease| lease.address);
        network_request(config, &self.pools, leased)
    }
}
