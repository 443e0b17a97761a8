//! End of the quiesce of an agent that was killed.

use super::RegisteredQuiesce;
use super::event_hooks::{self, HookEvent};
use super::frozen_set;
use super::marker;
use super::mounts;
use crate::task::spawn_blocking;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::timeout;

/// Time to thaw all file systems. Only opening a mount point may take longer, if its file system does not respond.
const THAW_DEADLINE: Duration = Duration::from_secs(10);

/// Thaws the file systems, which the keeper of the killed agent has done unless it was killed too, ends the hooks that
/// still run, and runs the thaw hooks.
pub(super) async fn end(registered: RegisteredQuiesce) {
    let shared = &registered.0;
    if shared.settings.freezes {
        let abandoned = Arc::new(AtomicBool::new(false));
        let thawing = Arc::clone(&abandoned);
        if timeout(THAW_DEADLINE, spawn_blocking(move || thaw_all(&thawing))).await.is_err() {
            tracing::warn!(
                "a mount point cannot be opened; the file systems after it were not thawed"
            );
            // A later quiesce must not be undone.
            abandoned.store(true, Ordering::SeqCst);
        }
    }
    if shared.marker.has_hooks() {
        let directories = HookEvent::ALL.map(|event| event.directory(shared));
        shared
            .executor
            .end_lost(|command| directories.iter().any(|dir| command.starts_with(dir)))
            .await;
        event_hooks::run_after(shared).await;
    }
    marker::clear(shared).await;
}

/// Thaws all file systems of the guest. Blocks.
fn thaw_all(abandoned: &AtomicBool) {
    let guest = match mounts::read() {
        Ok(guest) => guest,
        Err(error) => {
            tracing::warn!(%error, "cannot read the mounted file systems");
            return;
        }
    };
    for mount in guest.freezable.iter().rev() {
        frozen_set::thaw_mount(mount, || abandoned.load(Ordering::SeqCst));
    }
}
