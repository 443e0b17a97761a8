//! Number of changes of the guest's network, those of the agent and all others.

use super::events::NetlinkEvents;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::sleep;

/// Pause after a change. Changes within it count as one, so that a guest that changes its network all the time does not
/// occupy the agent.
const PAUSE: Duration = Duration::from_millis(100);

/// Counter of changes. `None` if the kernel does not report them.
#[derive(Debug)]
pub(super) struct ChangeCount(Option<Arc<AtomicU64>>);

impl ChangeCount {
    /// Starts to count, as long as the agent runs.
    pub(super) fn start() -> Self {
        let Ok(runtime) = Handle::try_current() else { return Self(None) };
        let events = match NetlinkEvents::of_network() {
            Ok(events) => events,
            Err(error) => {
                tracing::warn!(%error, "changes of the network are not noticed");
                return Self(None);
            }
        };
        let count = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&count);
        runtime.spawn(async move {
            while events.next().await.is_ok() {
                counted.fetch_add(1, Ordering::Relaxed);
                sleep(PAUSE).await;
            }
        });
        Self(Some(count))
    }

    pub(super) fn get(&self) -> Option<u64> {
        self.0.as_ref().map(|count| count.load(Ordering::Relaxed))
    }
}
