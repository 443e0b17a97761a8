//! Guest that is booting: `CONNECT` is accepted, and unanswered until the guest's vsock driver is up.

use super::guest::Guest;
use std::sync::Arc;
use tokio::sync::watch;

/// Boot in progress. Clones are handles of the same boot.
#[derive(Debug, Clone)]
pub struct Boot {
    pub(super) guest: Guest,
    driver_is_up: Arc<watch::Sender<bool>>,
}

impl Boot {
    /// Starts the boot of this guest.
    #[must_use]
    pub fn of(guest: Guest) -> Self {
        Self { guest, driver_is_up: Arc::new(watch::Sender::new(false)) }
    }

    /// Completes the boot: connections that wait for the driver are closed, as real VMMs do, and new ones reach the
    /// agent.
    pub fn completes(&self) {
        self.driver_is_up.send_replace(true);
    }

    /// Waits until the driver is up. Returns true if it was up already.
    pub(super) async fn passes(&self) -> bool {
        let mut is_up = self.driver_is_up.subscribe();
        let was_up = *is_up.borrow();
        // The sender is this value's.
        let _ = is_up.wait_for(|is_up| *is_up).await;
        was_up
    }
}
