//! A guest that boots: `CONNECT` is accepted, and unanswered until the guest's vsock driver is up.

use super::Guest;
use std::sync::Arc;
use tokio::sync::watch;

/// A boot under way. Clones are the same.
#[derive(Debug, Clone)]
pub struct Boot {
    pub(super) guest: Guest,
    driver_is_up: Arc<watch::Sender<bool>>,
}

impl Boot {
    /// The boot of this guest.
    #[must_use]
    pub fn of(guest: Guest) -> Self {
        Self { guest, driver_is_up: Arc::new(watch::Sender::new(false)) }
    }

    /// The driver is up: connections that wait for it are closed, as real VMMs do, and new ones reach the agent.
    pub fn completes(&self) {
        self.driver_is_up.send_replace(true);
    }

    /// Whether the driver was up already. If not, returns when it is.
    pub(super) async fn passes(&self) -> bool {
        let mut is_up = self.driver_is_up.subscribe();
        let was_up = *is_up.borrow();
        // The sender is this value's.
        let _ = is_up.wait_for(|is_up| *is_up).await;
        was_up
    }
}
