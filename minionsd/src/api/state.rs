//! State of all handlers.

use super::auth::Policy;
use crate::audit::AuditLog;
use crate::declared::DeclaredStore;
use crate::exec::ExecResources;
use crate::metrics::Meters;
use crate::reconcile::{Reconciler, VmConditions};
use crate::vm::Registry;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// State of all handlers. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct ApiState {
    pub(crate) registry: Registry,
    /// Rules that give callers their scopes.
    pub(crate) policy: Policy,
    /// The audit log.
    pub(crate) audit: AuditLog,
    /// Settings that VMs must have.
    pub(crate) declared: DeclaredStore,
    /// Agreement of VMs with their settings.
    pub(crate) conditions: VmConditions,
    /// Task that applies the settings.
    pub(crate) reconciler: Reconciler,
    /// Resources shared by all programs.
    pub(crate) execs: ExecResources,
    /// Counters and histograms.
    pub(crate) meters: Arc<Meters>,
    /// Cancelled once the daemon has been told to stop.
    pub(crate) draining: CancellationToken,
    /// Returns the OpenAPI document, which is generated from the routes.
    pub(crate) document: fn() -> &'static str,
}
