//! Plans of leases: for a VM's configuration, by hand, and their end.

use crate::address_pool::{AddressPool, RELEASE_AFTER_SECS};
use crate::effective::LeaseNeed;
use crate::error::DeclareError;
use crate::state::{Change, DeclaredState, Plan};
use minions_api::pool::{Lease, LeaseKind, ReserveRequest};
use minions_api::{Timestamp, VmName};
use minions_proto::Invalid;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

/// Largest number of leases.
pub const MAX_LEASES: usize = 262_144;

/// Time for which an address that another host has is not given to a VM.
pub const DUPLICATE_FOR: Duration = Duration::from_hours(1);

/// Largest number of such addresses that one VM has found: a guest that lies must not use up a pool.
const MAX_DUPLICATES: usize = 4;

/// Longest name of an interface, in bytes.
const MAX_INTERFACE: usize = 127;

impl DeclaredState {
    /// Plans the leases that a VM needs. Existing leases are kept, so the VM's addresses stay the same.
    ///
    /// # Errors
    ///
    /// [`DeclareError`] if an address belongs to another VM, or if a pool has none left.
    pub fn plan_leases(&self, vm: &VmName, needs: &[LeaseNeed]) -> Result<Plan, DeclareError> {
        let mut changes = Vec::new();
        let mut chosen = BTreeSet::new();
        for need in needs {
            let lease = match self.lease_for(vm, need) {
                Some(lease) if lease.unused_since.is_none() => continue,
                Some(lease) => Lease { unused_since: None, ..lease.clone() },
                None => self.new_lease(vm, need, &chosen)?,
            };
            chosen.insert(lease.address);
            changes.push(Change::PutLease(lease));
        }
        self.check_room(&changes)?;
        Ok(Plan { changes, revision: self.revision })
    }

    fn new_lease(
        &self,
        vm: &VmName,
        need: &LeaseNeed,
        chosen: &BTreeSet<IpAddr>,
    ) -> Result<Lease, DeclareError> {
        let (interface, address, kind) = match need {
            LeaseNeed::Fixed { interface, address } => {
                self.check_holder(vm, *address)?;
                (interface, *address, LeaseKind::Static)
            }
            LeaseNeed::Pool { interface, pool } => {
                let address = self.next_free(pool, vm, chosen)?;
                (interface, address, LeaseKind::Pool)
            }
        };
        let vm = Some(vm.clone());
        Ok(Lease { address, vm, interface: interface.clone(), kind, unused_since: None })
    }

    fn next_free(
        &self,
        pool: &str,
        vm: &VmName,
        chosen: &BTreeSet<IpAddr>,
    ) -> Result<IpAddr, DeclareError> {
        let stored = self.pools.get(pool).ok_or_else(|| DeclareError::NoPool(pool.to_owned()))?;
        let free = self.free.get(pool);
        let is_taken = |one| {
            let address = stored.pool.address(one);
            chosen.contains(&address) || self.declarations.is_fixed(address)
        };
        let found = free.and_then(|free| free.first(is_taken));
        let exhausted = || DeclareError::Exhausted { pool: pool.to_owned(), vm: vm.clone() };
        found.map(|one| stored.pool.address(one)).ok_or_else(exhausted)
    }

    /// Checks that no other VM holds an address.
    pub(crate) fn check_holder(&self, vm: &VmName, address: IpAddr) -> Result<(), DeclareError> {
        let Some(lease) = self.leases.get(address) else { return Ok(()) };
        let reason = match &lease.vm {
            _ if lease.kind == LeaseKind::Duplicate => return Err(in_use_elsewhere(address)),
            Some(holder) if holder == vm => return Ok(()),
            Some(holder) if lease.unused_since.is_some() => {
                format!("is kept for {holder}, which no longer needs it: release it, or wait")
            }
            Some(holder) => format!("belongs to {holder}; {vm} cannot have it too"),
            None => format!("is reserved; release it before {vm} can have it"),
        };
        Err(DeclareError::AddressConflict { address, reason })
    }

    fn check_room(&self, changes: &[Change]) -> Result<(), DeclareError> {
        if self.leases.len() + changes.len() > MAX_LEASES {
            let reason =
                format!("there are {} leases: the limit is {MAX_LEASES}", self.leases.len());
            return Err(Invalid::new("leases", reason).into());
        }
        Ok(())
    }

    /// Plans a reservation.
    ///
    /// # Errors
    ///
    /// [`DeclareError`].
    pub fn plan_reserve(
        &self,
        pool: &str,
        request: &ReserveRequest,
    ) -> Result<(Plan, Lease), DeclareError> {
        let stored = self.pools.get(pool).ok_or_else(|| DeclareError::NoPool(pool.to_owned()))?;
        let ReserveRequest { address, vm, interface } = request;
        let interface = interface.to_ascii_lowercase();
        if interface.len() > MAX_INTERFACE || interface.contains(|one: char| one.is_control()) {
            let reason = format!(
                "must be the name or MAC address of an interface, at most {MAX_INTERFACE} bytes"
            );
            return Err(Invalid::new("interface", reason).into());
        }
        let interface = match vm {
            Some(vm) if interface.is_empty() => self.interface_for(vm, pool, *address)?,
            Some(_) | None => interface,
        };
        let address = match (address, vm) {
            (Some(address), _) => self.reservable(&stored.pool, *address, vm.as_ref())?,
            (None, Some(vm)) => {
                let need = LeaseNeed::Pool { interface: interface.clone(), pool: pool.to_owned() };
                match self.lease_for(vm, &need) {
                    Some(lease) => lease.address,
                    None => self.next_free(pool, vm, &BTreeSet::new())?,
                }
            }
            (None, None) => {
                let reason = "is missing: give `address`, or `vm` for the next free address";
                return Err(Invalid::new("address", reason).into());
            }
        };
        let vm = vm.clone();
        let kind = LeaseKind::Reserved;
        let lease = Lease { address, vm, interface, kind, unused_since: None };
        let is_new = self.leases.get(address) != Some(&lease);
        let changes: Vec<_> = is_new.then(|| Change::PutLease(lease.clone())).into_iter().collect();
        self.check_room(&changes)?;
        Ok((Plan { changes, revision: self.revision }, lease))
    }

    /// Returns the interface of a reservation that names none: the one that has the address, else the only one that is
    /// declared with this pool, else the first Ethernet interface.
    fn interface_for(
        &self,
        vm: &VmName,
        pool: &str,
        address: Option<IpAddr>,
    ) -> Result<String, DeclareError> {
        let lease = address.and_then(|address| self.leases.get(address));
        if let Some(lease) = lease.filter(|lease| lease.vm.as_ref() == Some(vm)) {
            return Ok(lease.interface.clone());
        }
        let needs = self.effective(vm).needs().into_iter();
        let declared = needs.filter_map(|need| match need {
            LeaseNeed::Pool { interface, pool: of } if of == pool => Some(interface),
            LeaseNeed::Pool { .. } | LeaseNeed::Fixed { .. } => None,
        });
        let mut declared: Vec<_> = declared.collect();
        match declared.len() {
            0 => Ok(String::new()),
            1 => Ok(declared.remove(0)),
            _ if declared.iter().any(String::is_empty) => Ok(String::new()),
            _ => {
                let names = declared.join(", ");
                let reason =
                    format!("is missing: {vm} has several interfaces in this pool: {names}");
                Err(Invalid::new("interface", reason).into())
            }
        }
    }

    fn reservable(
        &self,
        pool: &AddressPool,
        address: IpAddr,
        vm: Option<&VmName>,
    ) -> Result<IpAddr, DeclareError> {
        if !pool.can_be_reserved(address) {
            let reason = "must be an address of a host in the pool's subnet, and not its gateway";
            return Err(Invalid::value("address", &address.to_string(), reason).into());
        }
        let others = self.pools.values().map(|stored| &stored.pool);
        for other in others.filter(|other| other.name() != pool.name()) {
            let place = if other.gateway() == Some(address) {
                "the gateway"
            } else if other.is_in_range(address) {
                "in the range"
            } else {
                continue;
            };
            let reason = format!("is {place} of the pool {:?}", other.name());
            return Err(Invalid::value("address", &address.to_string(), &reason).into());
        }
        match (self.leases.get(address), vm) {
            (None, _) => Ok(address),
            (Some(lease), _) if lease.kind == LeaseKind::Duplicate => {
                Err(in_use_elsewhere(address))
            }
            (Some(lease), vm) if lease.vm.as_ref() == vm => Ok(address),
            (Some(_), Some(vm)) => self.check_holder(vm, address).map(|()| address),
            (Some(lease), None) => {
                let holder = lease.vm.as_ref().map_or("no VM", VmName::as_str);
                let reason = format!("belongs to {holder}: release it first");
                Err(DeclareError::AddressConflict { address, reason })
            }
        }
    }

    /// Plans the end of a lease, in the subnet of a pool if one is given. `is_used` reports whether the VM exists and may
    /// have the address. Also returns the lease.
    ///
    /// # Errors
    ///
    /// [`DeclareError`].
    pub fn plan_release(
        &self,
        pool: Option<&str>,
        address: IpAddr,
        is_used: impl Fn(&Lease) -> bool,
    ) -> Result<(Plan, Lease), DeclareError> {
        let no_lease = || DeclareError::NoLease { pool: pool.map(str::to_owned), address };
        let lease = self.leases.get(address);
        let lease = match pool {
            None => lease,
            Some(name) => {
                let no_pool = || DeclareError::NoPool(name.to_owned());
                let stored = self.pools.get(name).ok_or_else(no_pool)?;
                lease.filter(|_| stored.pool.contains(address))
            }
        };
        let lease = lease.ok_or_else(no_lease)?;
        let is_used = lease.kind != LeaseKind::Duplicate && is_used(lease);
        if let Some(vm) = lease.vm.as_ref().filter(|_| is_used) {
            let reason = format!(
                "is in use by {vm}, which exists: change its declaration first, or power it off"
            );
            return Err(DeclareError::AddressConflict { address, reason });
        }
        let changes = vec![Change::RemoveLease(address)];
        Ok((Plan { changes, revision: self.revision }, lease.clone()))
    }

    /// Plans the marks of leases that no VM needs any more, or needs again, and the end of those whose time is over.
    /// Reservations stay. `unused_for` returns the time since a lease was marked, which the marks themselves do not tell
    /// if the clock was set meanwhile.
    pub fn plan_sweep(
        &self,
        now: Timestamp,
        is_used: impl Fn(&Lease) -> bool,
        unused_for: impl Fn(&Lease) -> Duration,
    ) -> Plan {
        let chosen = self.leases.iter().filter(|lease| lease.kind != LeaseKind::Reserved);
        let is_used = |lease: &Lease| lease.kind != LeaseKind::Duplicate && is_used(lease);
        let changes = chosen.filter_map(|lease| match (is_used(lease), lease.unused_since) {
            (true, None) => None,
            (true, Some(_)) => {
                Some(Change::PutLease(Lease { unused_since: None, ..lease.clone() }))
            }
            (false, None) => {
                Some(Change::PutLease(Lease { unused_since: Some(now), ..lease.clone() }))
            }
            (false, Some(_)) => {
                let is_over = unused_for(lease) >= self.release_after(lease);
                is_over.then_some(Change::RemoveLease(lease.address))
            }
        });
        Plan { changes: changes.collect(), revision: self.revision }
    }

    /// Plans that an address from a pool is given to no VM for some time, because another host on the link has it. Without
    /// changes, the VM keeps its lease: it is not one from a pool, or the VM has found many such addresses.
    #[must_use]
    pub fn plan_quarantine(&self, vm: &VmName, address: IpAddr, now: Timestamp) -> Plan {
        let is_from_pool =
            |lease: &&Lease| lease.vm.as_ref() == Some(vm) && lease.kind == LeaseKind::Pool;
        let lease = self.leases.get(address).filter(is_from_pool);
        let found = self.leases.of_vm(vm).filter(|lease| lease.kind == LeaseKind::Duplicate);
        let change = lease.filter(|_| found.count() < MAX_DUPLICATES).map(|lease| {
            let (kind, unused_since) = (LeaseKind::Duplicate, Some(now));
            Change::PutLease(Lease { kind, unused_since, ..lease.clone() })
        });
        Plan { changes: change.into_iter().collect(), revision: self.revision }
    }

    /// Returns the time after which a lease that no VM needs ends.
    #[must_use]
    pub fn release_after(&self, lease: &Lease) -> Duration {
        if lease.kind == LeaseKind::Duplicate {
            return DUPLICATE_FOR;
        }
        let in_range = |pool: &AddressPool| pool.is_in_range(lease.address);
        let mut pools = self.pools.values().map(|stored| &stored.pool);
        let default = Duration::from_secs(RELEASE_AFTER_SECS);
        let found = pools.find(|pool| in_range(pool));
        found.map_or(default, |pool| Duration::from_millis(pool.release_after_ms()))
    }
}

fn in_use_elsewhere(address: IpAddr) -> DeclareError {
    let reason = "is in use by another host on the link, as a VM found out: correct that host and release the address, or \
                  use another one";
    DeclareError::AddressConflict { address, reason: reason.to_owned() }
}
