//! Draft of the state after an apply, while its request is checked.

use crate::address_pool::AddressPool;
use crate::check::check_declaration;
use crate::declaration_set::{DeclarationSet, StoredDeclaration};
use crate::diff::diff;
use crate::error::DeclareError;
use crate::state::{Change, DeclaredState, Plan, Pools, StoredPool};
use crate::target::Target;
use minions_api::declaration::{
    AppliedItem, ApplyAction, ApplyRequest, Declaration, DeclaredKind, FieldDiff,
};
use minions_api::pool::Pool;
use minions_proto::Invalid;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Largest number of declarations.
pub(crate) const MAX_DECLARATIONS: usize = 10_000;
/// Largest number of declarations of patterns: each is matched against every VM.
pub(crate) const MAX_PATTERNS: usize = 256;

/// State after an apply, and the changes that lead to it.
pub(crate) struct Draft {
    pub(crate) pools: Pools,
    pub(crate) declarations: DeclarationSet,
    pub(crate) plan: Plan,
    pub(crate) items: Vec<AppliedItem>,
}

impl Draft {
    /// Starts with the current state.
    pub(crate) fn of(state: &DeclaredState) -> Self {
        Self {
            pools: state.pools.clone(),
            declarations: state.declarations.clone(),
            plan: Plan { changes: Vec::new(), revision: state.revision + 1 },
            items: Vec::new(),
        }
    }

    pub(crate) fn put_pools(&mut self, pools: &[Pool]) -> Result<(), DeclareError> {
        let mut seen = BTreeSet::new();
        for (at, pool) in pools.iter().enumerate() {
            let field = format!("pools[{at}]");
            let parsed = AddressPool::parse(&field, pool)?;
            if !seen.insert(&pool.name) {
                return Err(given_twice(&field, &pool.name).into());
            }
            let before = self.pools.get(&pool.name).map(|stored| stored.pool.declared());
            let action = action(before, pool);
            self.item(DeclaredKind::Pool, &pool.name, action, diff(before, Some(pool)));
            if action == ApplyAction::Unchanged {
                continue;
            }
            let stored = Arc::new(StoredPool { pool: parsed, revision: self.plan.revision });
            self.plan.changes.push(Change::PutPool(Arc::clone(&stored)));
            self.pools.insert(pool.name.clone(), stored);
        }
        Ok(())
    }

    pub(crate) fn put_declarations(
        &mut self,
        declarations: &[Declaration],
    ) -> Result<(), DeclareError> {
        let mut seen = BTreeSet::new();
        for (at, declaration) in declarations.iter().enumerate() {
            let field = format!("declarations[{at}]");
            let target = Target::parse(&format!("{field}.name"), &declaration.name)?;
            if !seen.insert(&declaration.name) {
                return Err(given_twice(&field, &declaration.name).into());
            }
            let before = self.declarations.get(&declaration.name).map(|one| &one.declaration);
            let action = action(before, declaration);
            let difference = diff(before, Some(declaration));
            self.item(DeclaredKind::Declaration, &declaration.name, action, difference);
            if action == ApplyAction::Unchanged {
                continue;
            }
            let stored = StoredDeclaration {
                target,
                declaration: declaration.clone(),
                revision: self.plan.revision,
            };
            let stored = Arc::new(stored);
            self.plan.changes.push(Change::PutDeclaration(Arc::clone(&stored)));
            self.declarations.insert(stored);
        }
        Ok(())
    }

    pub(crate) fn prune_declarations(&mut self, kept: &[Declaration]) {
        let kept: BTreeSet<_> = kept.iter().map(|one| one.name.as_str()).collect();
        let all = self.declarations.iter().map(|one| one.target.as_str());
        let gone: Vec<_> = all.filter(|name| !kept.contains(name)).map(str::to_owned).collect();
        for name in gone {
            let before = self.declarations.get(&name).map(|one| &one.declaration);
            let difference = diff(before, None);
            self.item(DeclaredKind::Declaration, &name, ApplyAction::Removed, difference);
            self.declarations.remove(&name);
            self.plan.changes.push(Change::RemoveDeclaration(name));
        }
    }

    pub(crate) fn prune_pools(&mut self, kept: &[Pool]) {
        let kept: BTreeSet<_> = kept.iter().map(|one| one.name.as_str()).collect();
        let all = self.pools.keys().filter(|name| !kept.contains(name.as_str()));
        for name in all.cloned().collect::<Vec<_>>() {
            let before = self.pools.get(&name).map(|stored| stored.pool.declared());
            let difference = diff(before, None);
            self.item(DeclaredKind::Pool, &name, ApplyAction::Removed, difference);
            self.pools.remove(&name);
            // First, because a new pool may use its addresses.
            self.plan.changes.insert(0, Change::RemovePool(name));
        }
    }

    fn item(&mut self, kind: DeclaredKind, name: &str, action: ApplyAction, diff: Vec<FieldDiff>) {
        self.items.push(AppliedItem { kind, name: name.to_owned(), action, diff });
    }

    /// Checks the limits, the declarations of the request, and, if pools changed, all others.
    pub(crate) fn check_declarations(&self, request: &ApplyRequest) -> Result<(), DeclareError> {
        let (all, patterns) = (self.declarations.len(), self.declarations.patterns());
        if all > MAX_DECLARATIONS || patterns > MAX_PATTERNS {
            let reason = format!(
                "there would be {all} declarations, {patterns} of them with patterns: the limits are \
                 {MAX_DECLARATIONS} and {MAX_PATTERNS}"
            );
            return Err(Invalid::new("declarations", reason).into());
        }
        for (at, declaration) in request.declarations.iter().enumerate() {
            if let Some(stored) = self.declarations.get(&declaration.name) {
                let field = format!("declarations[{at}]");
                check_declaration(&field, &stored.target, declaration, &self.pools)?;
            }
        }
        let pools_changed = self
            .plan
            .changes
            .iter()
            .any(|change| matches!(change, Change::PutPool(_) | Change::RemovePool(_)));
        for stored in self.declarations.iter().filter(|_| pools_changed) {
            let checked = check_declaration("", &stored.target, &stored.declaration, &self.pools);
            checked.map_err(|invalid| {
                DeclareError::PoolConflict(format!(
                    "the declaration {:?} does not fit the changed pools: {invalid}",
                    stored.target.as_str()
                ))
            })?;
        }
        Ok(())
    }
}

fn action<T: PartialEq>(before: Option<&T>, after: &T) -> ApplyAction {
    match before {
        None => ApplyAction::Created,
        Some(before) if before == after => ApplyAction::Unchanged,
        Some(_) => ApplyAction::Updated,
    }
}

fn given_twice(field: &str, name: &str) -> Invalid {
    Invalid::value(format!("{field}.name"), name, "is given twice; merge the two items")
}
