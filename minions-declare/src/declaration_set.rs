//! All declarations, by name and in the order of their precedence.

use crate::effective::{LeaseNeed, addressing};
use crate::target::Target;
use minions_api::VmName;
use minions_api::declaration::Declaration;
use minions_api::label::{LabelSelector, Labels};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// A checked declaration with its revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDeclaration {
    /// VMs of the declaration.
    pub target: Target,
    /// The declaration.
    pub declaration: Declaration,
    /// Revision in which it was last changed.
    pub revision: u64,
}

/// Set of declarations. A clone shares the declarations.
#[derive(Debug, Clone, Default)]
pub struct DeclarationSet {
    by_name: BTreeMap<String, Arc<StoredDeclaration>>,
    /// Declarations of patterns, the most specific first.
    patterns: Vec<Arc<StoredDeclaration>>,
    /// Addresses that declarations have, with the number of these declarations.
    fixed: BTreeMap<IpAddr, usize>,
}

impl DeclarationSet {
    /// Adds or replaces a declaration.
    pub fn insert(&mut self, stored: Arc<StoredDeclaration>) {
        self.forget_addresses(stored.target.as_str());
        for address in fixed_addresses(&stored.declaration) {
            *self.fixed.entry(address).or_default() += 1;
        }
        if stored.target.vm().is_none() {
            let place = self.patterns.binary_search_by(|one| one.target.cmp(&stored.target));
            match place {
                Ok(index) => self.patterns[index] = Arc::clone(&stored),
                Err(index) => self.patterns.insert(index, Arc::clone(&stored)),
            }
        }
        self.by_name.insert(stored.target.as_str().to_owned(), stored);
    }

    /// Removes a declaration.
    pub fn remove(&mut self, name: &str) {
        self.forget_addresses(name);
        self.by_name.remove(name);
        self.patterns.retain(|one| one.target.as_str() != name);
    }

    fn forget_addresses(&mut self, name: &str) {
        let Some(stored) = self.by_name.get(name) else { return };
        for address in fixed_addresses(&stored.declaration) {
            let count = self.fixed.get(&address).copied().unwrap_or_default();
            if count > 1 {
                self.fixed.insert(address, count - 1);
            } else {
                self.fixed.remove(&address);
            }
        }
    }

    /// Reports whether a declaration has this address. No pool gives it then.
    #[must_use]
    pub fn is_fixed(&self, address: IpAddr) -> bool {
        self.fixed.contains_key(&address)
    }

    /// Returns the addresses that declarations have.
    pub fn fixed(&self) -> impl Iterator<Item = IpAddr> {
        self.fixed.keys().copied()
    }

    /// Returns the declaration of this name or pattern.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<StoredDeclaration>> {
        self.by_name.get(name)
    }

    /// Returns the declarations that match a VM, the most specific one first.
    pub fn matching(&self, vm: &VmName) -> impl Iterator<Item = &Arc<StoredDeclaration>> {
        // A name without wildcards is never a pattern's.
        let own = self.by_name.get(vm.as_str());
        own.into_iter().chain(self.patterns.iter().filter(|one| one.target.matches(vm)))
    }

    /// Returns the labels of a VM: for each key, the most specific declaration decides.
    #[must_use]
    pub fn labels_of(&self, vm: &VmName) -> Labels {
        merged_labels(self.matching(vm))
    }

    /// Returns the labels of a VM if they satisfy a selector.
    #[must_use]
    pub fn labels_if(&self, vm: &VmName, selector: &LabelSelector) -> Option<Labels> {
        let matching: Vec<_> = self.matching(vm).collect();
        have_labels(&matching, selector).then(|| merged_labels(matching))
    }

    /// Reports whether the labels of a VM satisfy a selector.
    #[must_use]
    pub fn has_labels(&self, vm: &VmName, selector: &LabelSelector) -> bool {
        let matching: Vec<_> = self.matching(vm).collect();
        have_labels(&matching, selector)
    }

    /// Returns the declared clock limit of a VM in milliseconds; 0: its clock is never set.
    #[must_use]
    pub fn clock_limit_ms(&self, vm: &VmName) -> Option<u64> {
        self.matching(vm).find_map(|stored| stored.declaration.clock_limit_ms)
    }

    /// Returns all declarations by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<StoredDeclaration>> {
        self.by_name.values()
    }

    /// Returns the number of declarations.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Reports whether there is no declaration.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Returns the number of declarations of patterns.
    #[must_use]
    pub fn patterns(&self) -> usize {
        self.patterns.len()
    }
}

/// Reports whether the labels of declarations, the most specific one first, satisfy a selector.
fn have_labels(matching: &[&Arc<StoredDeclaration>], selector: &LabelSelector) -> bool {
    selector
        .matches_with(|key| matching.iter().find_map(|stored| stored.declaration.labels.get(key)))
}

/// Returns the labels of declarations, the most specific one first.
fn merged_labels<'a>(matching: impl IntoIterator<Item = &'a Arc<StoredDeclaration>>) -> Labels {
    let mut matching = matching.into_iter();
    let mut labels =
        matching.next().map(|first| first.declaration.labels.clone()).unwrap_or_default();
    for stored in matching {
        for (key, value) in &stored.declaration.labels {
            labels.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    labels
}

fn fixed_addresses(declaration: &Declaration) -> Vec<IpAddr> {
    let addressing = declaration.network.as_ref().and_then(addressing);
    let needs = addressing.map(|one| one.needs()).unwrap_or_default();
    let fixed = needs.into_iter().filter_map(|need| match need {
        LeaseNeed::Fixed { address, .. } => Some(address),
        LeaseNeed::Pool { .. } => None,
    });
    fixed.collect()
}
