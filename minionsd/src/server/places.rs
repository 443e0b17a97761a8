//! Connection slots of one listener.

use super::shares::CountedConnection;
use crate::descriptors::OVERFLOW;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A slot for one connection, released on drop.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    _permit: OwnedSemaphorePermit,
    pub(super) is_normal: bool,
    /// Entry of the connection in the count of its user, if the user is counted.
    pub(super) counted: Option<CountedConnection>,
}

impl ConnectionSlot {
    fn new(permit: OwnedSemaphorePermit, is_normal: bool) -> Self {
        Self { _permit: permit, is_normal, counted: None }
    }
}

/// The slots of one listener.
#[derive(Debug)]
pub(super) struct ConnectionSlots {
    clients: usize,
    normal: Arc<Semaphore>,
    /// Slots for clients beyond the limit, which get only `/healthz` or a 503. Further clients wait in the kernel's
    /// backlog.
    overflow: Arc<Semaphore>,
}

impl ConnectionSlots {
    pub(super) fn new(clients: usize) -> Self {
        let normal = Arc::new(Semaphore::new(clients));
        Self { clients, normal, overflow: Arc::new(Semaphore::new(OVERFLOW)) }
    }

    /// Waits for a free slot, preferably a normal one. Never returns `None`, because the semaphores are never closed.
    pub(super) async fn any(&self) -> Option<ConnectionSlot> {
        let (permit, is_normal) = tokio::select! {
            biased;
            permit = Arc::clone(&self.normal).acquire_owned() => (permit.ok()?, true),
            permit = Arc::clone(&self.overflow).acquire_owned() => (permit.ok()?, false),
        };
        Some(ConnectionSlot::new(permit, is_normal))
    }

    /// Replaces an overflow slot with a normal one, if one became free before a client connected.
    pub(super) fn improve(&self, place: &mut ConnectionSlot) {
        if !place.is_normal
            && let Ok(permit) = Arc::clone(&self.normal).try_acquire_owned()
        {
            *place = ConnectionSlot::new(permit, true);
        }
    }

    /// Returns a free overflow slot, for a client whose user has reached its limit of normal slots.
    pub(super) fn only_overflow(&self) -> Option<ConnectionSlot> {
        let permit = Arc::clone(&self.overflow).try_acquire_owned().ok()?;
        Some(ConnectionSlot::new(permit, false))
    }

    /// Returns the number of normal slots in use.
    pub(super) fn taken(&self) -> usize {
        self.clients.saturating_sub(self.normal.available_permits())
    }
}
