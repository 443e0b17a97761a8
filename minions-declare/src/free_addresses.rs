//! Sets of addresses, as ranges.

use std::collections::BTreeMap;

/// Set of addresses of one family, as numbers. A range takes one entry, so an IPv6 subnet costs no more than an IPv4
/// one. All operations on one address take logarithmic time in the number of ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FreeAddresses {
    /// Last address of each range, by its first. Ranges neither overlap nor touch.
    ranges: BTreeMap<u128, u128>,
}

impl FreeAddresses {
    /// Creates the set of the addresses from `first` to `last`.
    #[must_use]
    pub fn range(first: u128, last: u128) -> Self {
        Self { ranges: (first <= last).then_some((first, last)).into_iter().collect() }
    }

    /// Returns the lowest address that `skip` does not reject.
    pub fn first(&self, skip: impl Fn(u128) -> bool) -> Option<u128> {
        self.ranges.iter().flat_map(|(first, last)| *first..=*last).find(|one| !skip(*one))
    }

    /// Reports whether the set contains an address.
    #[must_use]
    pub fn contains(&self, address: u128) -> bool {
        self.around(address).is_some()
    }

    /// Removes the addresses from `first` to `last`.
    pub fn remove(&mut self, first: u128, last: u128) {
        let before = self.ranges.range(..first).next_back().map(|(start, end)| (*start, *end));
        if let Some((start, end)) = before.filter(|(_, end)| *end >= first) {
            self.ranges.insert(start, first - 1);
            if end > last {
                self.ranges.insert(last + 1, end);
            }
        }
        let within: Vec<_> =
            self.ranges.range(first..=last).map(|(start, end)| (*start, *end)).collect();
        for (start, end) in within {
            self.ranges.remove(&start);
            if end > last {
                self.ranges.insert(last + 1, end);
            }
        }
    }

    /// Adds an address.
    pub fn insert(&mut self, address: u128) {
        if self.contains(address) {
            return;
        }
        let (mut first, mut last) = (address, address);
        let before = self.ranges.range(..address).next_back().map(|(start, end)| (*start, *end));
        if let Some((start, end)) = before
            && end.checked_add(1) == Some(address)
        {
            first = start;
        }
        if let Some(next) = address.checked_add(1)
            && let Some(end) = self.ranges.remove(&next)
        {
            last = end;
        }
        self.ranges.insert(first, last);
    }

    /// Returns the number of addresses, at most [`u64::MAX`].
    #[must_use]
    pub fn count(&self) -> u64 {
        let sizes = self.ranges.iter().map(|(first, last)| (last - first).saturating_add(1));
        let total = sizes.fold(0_u128, u128::saturating_add);
        u64::try_from(total).unwrap_or(u64::MAX)
    }

    fn around(&self, address: u128) -> Option<(u128, u128)> {
        let (first, last) = self.ranges.range(..=address).next_back()?;
        (*last >= address).then_some((*first, *last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[derive(Debug, Clone)]
    enum Step {
        Remove(u128, u128),
        Insert(u128),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0_u128..40, 0_u128..6).prop_map(|(first, more)| Step::Remove(first, first + more)),
            (0_u128..40).prop_map(Step::Insert),
        ]
    }

    proptest! {
        #[test]
        fn the_set_equals_a_set_of_single_addresses(
            last in 0_u128..40, steps in prop::collection::vec(step(), 0..60)
        ) {
            let mut free = FreeAddresses::range(3, last);
            let mut model: BTreeSet<u128> = (3..=last).collect();
            for step in steps {
                match step {
                    Step::Remove(first, last) => {
                        free.remove(first, last);
                        model.retain(|one| !(first..=last).contains(one));
                    }
                    Step::Insert(one) => {
                        free.insert(one);
                        model.insert(one);
                    }
                }
                prop_assert_eq!(free.first(|_| false), model.first().copied());
                prop_assert_eq!(free.count(), model.len() as u64);
                for one in 0..50 {
                    prop_assert_eq!(free.contains(one), model.contains(&one));
                }
            }
        }
    }

    #[test]
    fn the_ends_of_the_number_range_do_not_overflow() {
        let mut free = FreeAddresses::range(0, u128::MAX);
        assert_eq!(free.count(), u64::MAX);
        free.remove(0, 0);
        free.remove(u128::MAX, u128::MAX);
        assert!(!free.contains(0) && !free.contains(u128::MAX));
        free.insert(u128::MAX);
        free.insert(0);
        assert_eq!(free, FreeAddresses::range(0, u128::MAX));
    }
}
