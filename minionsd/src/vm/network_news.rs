//! VMs whose guests report that their network has changed.

use minions_api::VmName;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// Names of these VMs, from the supervisors to the reconciler. Each name is kept once. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct NetworkNews(Arc<NewsState>);

#[derive(Debug, Default)]
struct NewsState {
    names: Mutex<BTreeSet<VmName>>,
    added: Notify,
}

impl NetworkNews {
    /// Adds a VM.
    pub(crate) fn tell(&self, vm: &VmName) {
        let mut names = self.0.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.insert(vm.clone());
        self.0.added.notify_one();
    }

    /// Takes all VMs; waits until there is one. There is one reader.
    ///
    /// Cancel safe.
    pub(crate) async fn next(&self) -> BTreeSet<VmName> {
        loop {
            let names = {
                let mut names = self.0.names.lock().unwrap_or_else(PoisonError::into_inner);
                std::mem::take(&mut *names)
            };
            if !names.is_empty() {
                return names;
            }
            self.0.added.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn each_vm_is_told_once_and_none_is_lost() {
        let news = NetworkNews::default();
        assert_eq!(news.next().now_or_never(), None);
        let [one, other] = ["a", "b"].map(|name| name.parse::<VmName>().unwrap());
        for vm in [&one, &other, &one] {
            news.tell(vm);
        }
        assert_eq!(news.next().await, [one.clone(), other].into());
        assert_eq!(news.next().now_or_never(), None);
        news.tell(&one);
        assert_eq!(news.next().await, [one].into());
    }
}
