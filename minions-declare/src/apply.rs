//! Plans of changes to pools and declarations.

use crate::address_pool::AddressPool;
use crate::declaration_set::{DeclarationSet, StoredDeclaration};
use crate::draft::Draft;
use crate::effective::{EffectiveConfig, LeaseNeed};
use crate::error::DeclareError;
use crate::state::{Change, DeclaredState, Plan, Pools, StoredPool};
use crate::target::Target;
use minions_api::VmName;
use minions_api::declaration::{ApplyReport, ApplyRequest, Declaration};
use minions_api::pool::Pool;
use minions_proto::Invalid;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Largest number of pools.
pub const MAX_POOLS: usize = 256;

/// Largest number of VMs that a report names.
const MAX_NAMED_VMS: usize = 1000;
/// Largest number of declarations without a VM that a report names.
const NAMED_UNMATCHED: usize = 10;

/// Revision that the caller expects an item to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfRevision {
    /// Any, or none.
    Any,
    /// The item must not exist.
    Missing,
    /// The item must exist.
    Present,
    /// The item must have this revision.
    Is(u64),
}

impl IfRevision {
    /// Checks the revision of an item; `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// [`DeclareError::RevisionChanged`].
    pub fn check(self, name: &str, revision: Option<u64>) -> Result<(), DeclareError> {
        let holds = match self {
            Self::Any => true,
            Self::Missing => revision.is_none(),
            Self::Present => revision.is_some(),
            Self::Is(expected) => revision == Some(expected),
        };
        let changed = || DeclareError::RevisionChanged { name: name.to_owned(), revision };
        holds.then_some(()).ok_or_else(changed)
    }
}

impl DeclaredState {
    /// Plans an apply: all its changes, or an error. `vms` are the existing VMs, sorted, for the report.
    ///
    /// # Errors
    ///
    /// [`DeclareError`] for the first item that cannot be applied.
    pub fn plan_apply(
        &self,
        request: &ApplyRequest,
        vms: &[VmName],
    ) -> Result<(Plan, ApplyReport), DeclareError> {
        let mut draft = Draft::of(self);
        draft.put_pools(&request.pools)?;
        if request.prune {
            draft.prune_declarations(&request.declarations);
            draft.prune_pools(&request.pools);
        }
        draft.put_declarations(&request.declarations)?;
        self.check_pools(&draft)?;
        draft.check_declarations(request)?;
        self.check_addresses(&draft)?;
        if draft.plan.changes.is_empty() {
            draft.plan.revision = self.revision;
        }
        let report = self.report(request, &draft, vms);
        Ok((draft.plan, report))
    }

    /// Plans the creation or replacement of a declaration.
    ///
    /// # Errors
    ///
    /// [`DeclareError`].
    pub fn plan_put_declaration(
        &self,
        declaration: Declaration,
        expected: IfRevision,
    ) -> Result<Plan, DeclareError> {
        let known = self.declarations.get(&declaration.name).map(|stored| stored.revision);
        expected.check(&declaration.name, known)?;
        let request = ApplyRequest { declarations: vec![declaration], ..ApplyRequest::default() };
        self.plan_one(&request, "declarations[0].")
    }

    /// Plans the creation or replacement of a pool.
    ///
    /// # Errors
    ///
    /// [`DeclareError`].
    pub fn plan_put_pool(&self, pool: Pool, expected: IfRevision) -> Result<Plan, DeclareError> {
        let known = self.pools.get(&pool.name).map(|stored| stored.revision);
        expected.check(&pool.name, known)?;
        let request = ApplyRequest { pools: vec![pool], ..ApplyRequest::default() };
        self.plan_one(&request, "pools[0].")
    }

    fn plan_one(&self, request: &ApplyRequest, prefix: &str) -> Result<Plan, DeclareError> {
        let planned = self.plan_apply(request, &[]);
        planned.map(|(plan, _)| plan).map_err(|error| match error {
            DeclareError::Invalid(invalid) => {
                let field = invalid.field.strip_prefix(prefix).unwrap_or(&invalid.field);
                Invalid::new(field, invalid.reason.clone()).into()
            }
            error => error,
        })
    }

    /// Plans the removal of a declaration.
    ///
    /// # Errors
    ///
    /// [`DeclareError`].
    pub fn plan_remove_declaration(
        &self,
        name: &str,
        expected: IfRevision,
    ) -> Result<Plan, DeclareError> {
        let stored = self.declarations.get(name);
        let stored = stored.ok_or_else(|| DeclareError::NoDeclaration(name.to_owned()))?;
        expected.check(name, Some(stored.revision))?;
        let changes = vec![Change::RemoveDeclaration(name.to_owned())];
        Ok(Plan { changes, revision: self.revision + 1 })
    }

    /// Plans the removal of a pool. A pool with leases, or with declarations that use it, is kept.
    ///
    /// # Errors
    ///
    /// [`DeclareError`].
    pub fn plan_remove_pool(&self, name: &str, expected: IfRevision) -> Result<Plan, DeclareError> {
        let stored = self.pools.get(name);
        let stored = stored.ok_or_else(|| DeclareError::NoPool(name.to_owned()))?;
        expected.check(name, Some(stored.revision))?;
        let user = self.declarations.iter().find(|one| uses_pool(&one.declaration, name));
        if let Some(user) = user {
            let message = format!(
                "the pool {name:?} is used by the declaration {:?}: change that first",
                user.target.as_str()
            );
            return Err(DeclareError::PoolConflict(message));
        }
        self.check_pool_is_empty(stored)?;
        let changes = vec![Change::RemovePool(name.to_owned())];
        Ok(Plan { changes, revision: self.revision + 1 })
    }

    /// Checks that the pools of a draft neither overlap nor lose a lease.
    fn check_pools(&self, draft: &Draft) -> Result<(), DeclareError> {
        if draft.pools.len() > MAX_POOLS {
            let reason =
                format!("there would be {} pools: the limit is {MAX_POOLS}", draft.pools.len());
            return Err(Invalid::new("pools", reason).into());
        }
        let pools: Vec<_> = draft.pools.values().map(|stored| &stored.pool).collect();
        for (at, pool) in pools.iter().enumerate() {
            let conflict = pools[..at].iter().find_map(|other| pool.conflict_with(other));
            if let Some(conflict) = conflict {
                return Err(DeclareError::PoolConflict(conflict));
            }
        }
        for (name, before) in &self.pools {
            match draft.pools.get(name) {
                Some(after) if Arc::ptr_eq(before, after) => {}
                Some(after) => self.check_leases_stay(&before.pool, &after.pool)?,
                None => self.check_pool_is_empty(before)?,
            }
        }
        for (name, after) in &draft.pools {
            self.check_gateway(self.pools.get(name).map(|before| &before.pool), &after.pool)?;
        }
        Ok(())
    }

    /// Checks that nothing has a lease of a new gateway, of this pool or of another one with the same subnet.
    fn check_gateway(
        &self,
        before: Option<&AddressPool>,
        after: &AddressPool,
    ) -> Result<(), DeclareError> {
        let gateway = after.gateway();
        let is_new = before.is_none_or(|before| before.gateway() != gateway);
        let lease = gateway.filter(|_| is_new).and_then(|gateway| self.leases.get(gateway));
        let Some(lease) = lease else { return Ok(()) };
        Err(DeclareError::PoolConflict(format!(
            "the gateway {} of the pool {:?} is leased by {}: release it first, or use another gateway",
            lease.address,
            after.name(),
            lease.vm.as_ref().map_or("no VM", VmName::as_str)
        )))
    }

    /// Checks that a changed pool still has the addresses that it gave.
    fn check_leases_stay(
        &self,
        before: &AddressPool,
        after: &AddressPool,
    ) -> Result<(), DeclareError> {
        let given = self.leases_in(before).filter(|lease| before.gave(lease));
        let mut lost = given.filter(|lease| !after.has_place_for(lease));
        match lost.next() {
            None => Ok(()),
            Some(lease) => Err(DeclareError::PoolConflict(format!(
                "the changed pool {:?} has no place for the lease {} of {}: include the address, or release it first",
                after.name(),
                lease.address,
                lease.vm.as_ref().map_or("no VM", VmName::as_str)
            ))),
        }
    }

    fn check_pool_is_empty(&self, stored: &StoredPool) -> Result<(), DeclareError> {
        let leases = self.leases_in(&stored.pool).filter(|lease| stored.pool.gave(lease)).count();
        if leases == 0 {
            return Ok(());
        }
        let name = stored.pool.name();
        Err(DeclareError::PoolConflict(format!(
            "the pool {name:?} has leases ({leases}): they end after their VMs are gone, or with minionsctl pool release \
             {name} ADDRESS"
        )))
    }

    /// Checks the addresses that declarations of single VMs have: no two VMs have the same, and no other VM leases it.
    fn check_addresses(&self, draft: &Draft) -> Result<(), DeclareError> {
        let mut owners: BTreeMap<IpAddr, &VmName> = BTreeMap::new();
        let unchanged = |stored: &Arc<StoredDeclaration>| {
            let before = self.declarations.get(stored.target.as_str());
            before.is_some_and(|before| Arc::ptr_eq(before, stored))
        };
        for stored in draft.declarations.iter() {
            let (Some(vm), Some(network)) = (stored.target.vm(), &stored.declaration.network)
            else {
                continue;
            };
            let needs = crate::effective::addressing(network).map(|one| one.needs());
            for need in needs.unwrap_or_default() {
                let LeaseNeed::Fixed { address, .. } = need else { continue };
                let other = owners.insert(address, vm).filter(|other| *other != vm);
                if let Some(other) = other {
                    let reason =
                        format!("is declared for {other} and for {vm}: give each VM its own");
                    return Err(DeclareError::AddressConflict { address, reason });
                }
                if !unchanged(stored) {
                    self.check_holder(vm, address)?;
                }
            }
        }
        Ok(())
    }

    fn report(&self, request: &ApplyRequest, draft: &Draft, vms: &[VmName]) -> ApplyReport {
        let changed = !draft.plan.changes.is_empty();
        let affected: Vec<_> = vms
            .iter()
            .filter(|vm| {
                let before =
                    (self.effective(vm), self.pools_of(vm, &self.declarations, &self.pools));
                let after = (
                    EffectiveConfig::of(vm, &draft.declarations),
                    self.pools_of(vm, &draft.declarations, &draft.pools),
                );
                changed && before != after
            })
            .collect();
        ApplyReport {
            changed,
            dry_run: request.dry_run,
            items: draft.items.clone(),
            vms_total: affected.len() as u64,
            vms: affected.into_iter().take(MAX_NAMED_VMS).cloned().collect(),
            warnings: unmatched(request, draft, vms),
            revision: draft.plan.revision,
        }
    }

    /// Returns the pools of a VM's configuration.
    fn pools_of<'a>(
        &self,
        vm: &VmName,
        declarations: &DeclarationSet,
        pools: &'a Pools,
    ) -> Vec<Option<&'a AddressPool>> {
        let needs = EffectiveConfig::of(vm, declarations).needs().into_iter();
        needs
            .map(|need| match need {
                LeaseNeed::Pool { pool, .. } => pools.get(&pool).map(|stored| &stored.pool),
                LeaseNeed::Fixed { .. } => None,
            })
            .collect()
    }
}

fn uses_pool(declaration: &Declaration, pool: &str) -> bool {
    let Some(network) = &declaration.network else { return false };
    let interfaces = network.interfaces.iter().filter_map(|one| one.pool.as_deref());
    network.pool.as_deref().into_iter().chain(interfaces).any(|name| name == pool)
}

/// Returns remarks about declarations that match no VM. Before the daemon knows any VM, there are none.
fn unmatched(request: &ApplyRequest, draft: &Draft, vms: &[VmName]) -> Vec<String> {
    let is_unmatched = |one: &&Declaration| {
        let stored = draft.declarations.get(&one.name);
        !vms.is_empty() && stored.is_some_and(|stored| !matches_any(&stored.target, vms))
    };
    let names: Vec<_> =
        request.declarations.iter().filter(is_unmatched).map(|one| &one.name).collect();
    let named = names.iter().take(NAMED_UNMATCHED);
    let mut warnings: Vec<_> = named
        .map(|name| format!("the declaration {name:?} matches no VM that exists now"))
        .collect();
    if let more @ 1.. = names.len().saturating_sub(NAMED_UNMATCHED) {
        warnings.push(format!("{more} more declarations match no VM that exists now"));
    }
    warnings
}

/// Reports whether the target matches a VM of the sorted list.
fn matches_any(target: &Target, vms: &[VmName]) -> bool {
    match target.vm() {
        Some(vm) => vms.binary_search(vm).is_ok(),
        None => vms.iter().any(|vm| target.matches(vm)),
    }
}
