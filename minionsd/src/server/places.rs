//! Places for the clients of one listener.

use super::shares::Counted;
use crate::descriptors::OVERFLOW;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A client's place.
#[derive(Debug)]
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    pub(super) is_normal: bool,
    /// Its share of what its user may have.
    pub(super) counted: Option<Counted>,
}

impl Place {
    fn new(permit: OwnedSemaphorePermit, is_normal: bool) -> Self {
        Self { _permit: permit, is_normal, counted: None }
    }
}

/// The places of one listener.
#[derive(Debug)]
pub(super) struct Places {
    clients: usize,
    normal: Arc<Semaphore>,
    /// For those who only hear that there are too many. Beyond that the kernel's backlog is left.
    overflow: Arc<Semaphore>,
}

impl Places {
    pub(super) fn new(clients: usize) -> Self {
        let normal = Arc::new(Semaphore::new(clients));
        Self { clients, normal, overflow: Arc::new(Semaphore::new(OVERFLOW)) }
    }

    /// Waits until there is any. `None` never comes: a semaphore of ours is never closed.
    pub(super) async fn any(&self) -> Option<Place> {
        let (permit, is_normal) = tokio::select! {
            biased;
            permit = Arc::clone(&self.normal).acquire_owned() => (permit.ok()?, true),
            permit = Arc::clone(&self.overflow).acquire_owned() => (permit.ok()?, false),
        };
        Some(Place::new(permit, is_normal))
    }

    /// Somebody may have gone while we waited for the client that is here now.
    pub(super) fn improve(&self, place: &mut Place) {
        if !place.is_normal
            && let Ok(permit) = Arc::clone(&self.normal).try_acquire_owned()
        {
            *place = Place::new(permit, true);
        }
    }

    /// A place for a client that must not have a normal one, if there is any now.
    pub(super) fn only_overflow(&self) -> Option<Place> {
        let permit = Arc::clone(&self.overflow).try_acquire_owned().ok()?;
        Some(Place::new(permit, false))
    }

    pub(super) fn taken(&self) -> usize {
        self.clients.saturating_sub(self.normal.available_permits())
    }
}
