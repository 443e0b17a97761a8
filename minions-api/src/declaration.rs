//! Settings that each VM must have: `/declarations`, `/vms/{vm}/config`.

use crate::explanation::ConfigExplanation;
use crate::label::Labels;
use crate::network::{Check, NetworkRequest, RouteRequest};
use crate::pool::{Lease, Pool};
use crate::timestamp::Timestamp;
use crate::vm_name::VmName;
use serde::{Deserialize, Serialize};

/// Settings of the VMs that a name or pattern selects. The most specific declaration decides, field by field.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Declaration {
    /// Name of a VM, or a pattern with `*` and `?`. In `PUT /declarations/{name}` it may be left out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[cfg_attr(feature = "openapi", schema(max_length = 128, example = "web-*"))]
    pub name: String,
    /// Labels of the VMs; each label is a field of its own. At most 32.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    #[cfg_attr(feature = "openapi", schema(example = json!({"app": "web"})))]
    pub labels: Labels,
    /// Hostname of the guest's kernel; `{vm}` stands for the VM's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "{vm}"))]
    pub hostname: Option<String>,
    /// Network of the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<DeclaredNetwork>,
    /// Reaction to a guest that differs from its declaration; default: `report`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<DriftPolicy>,
    /// Clock offset in milliseconds above which the guest's clock is set, 100 to 86,400,000; 0: it is never set outside a
    /// restore. Absent: as in minionsd's configuration file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(maximum = 86_400_000))]
    pub clock_limit_ms: Option<u64>,
    /// Steps of a guest that was restored or cloned, in place of those in minionsd's configuration file. One field: the most
    /// specific declaration that has it decides about all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<Box<DeclaredRestore>>,
}

/// Steps of a guest that was restored from a snapshot or cloned, as an entry of `[[restore]]` in minionsd's configuration
/// file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DeclaredRestore {
    /// Steps to run: `entropy`, `clock`, `hostname`, `machine_id`, `ssh_host_keys`, `network`, `hooks`. Absent: `entropy` and
    /// `clock`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = json!(["entropy", "clock"])))]
    pub steps: Option<Vec<String>>,
    /// Steps without which the VM does not become ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(example = json!(["entropy"])))]
    pub required: Vec<String>,
    /// Hostname for the step `hostname`; `{vm}` stands for the VM's name. A declared `hostname` has precedence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_length = 64, example = "{vm}"))]
    pub hostname: Option<String>,
    /// Network for the step `network`. A declared `network` has precedence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkRequest>,
    /// Time limit of each hook in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 600_000))]
    pub hook_timeout_ms: Option<u64>,
}

/// Network of a guest. `pool`, `ip` with `gateway`, and `interfaces` exclude each other and are one field: the most
/// specific declaration that has one of them decides about addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DeclaredNetwork {
    /// Pool from which the first Ethernet interface gets its address and gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "default"))]
    pub pool: Option<String>,
    /// Address of the first Ethernet interface, with prefix length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "10.0.0.2/16"))]
    pub ip: Option<String>,
    /// Next hop of the default route. Requires `ip`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "10.0.0.1"))]
    pub gateway: Option<String>,
    /// Interfaces, each with all the addresses that it must have; at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(max_items = 16))]
    pub interfaces: Vec<DeclaredInterface>,
    /// Name servers, at most 16. Absent: those of the pools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_items = 16))]
    pub dns: Option<Vec<String>>,
    /// All routes of these interfaces, as in `PUT /vms/{vm}/network`; at most 256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_items = 256))]
    pub routes: Option<Vec<RouteRequest>>,
    /// Search domains for short names, at most 16. Requires name servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_items = 16))]
    pub search: Option<Vec<String>>,
    /// MTU in bytes, for every interface without an MTU of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1280, maximum = 65535))]
    pub mtu: Option<u32>,
    /// Checks after each change, as in `PUT /vms/{vm}/network`. Absent: all except `dns` that have something to check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Vec<Check>>,
}

/// An interface that a guest must have. With neither `name` nor `mac` it is the first Ethernet interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DeclaredInterface {
    /// Name of the interface in the guest's kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "eth0"))]
    pub name: Option<String>,
    /// Link-layer address of the interface. Excludes `name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "52:54:00:12:34:56"))]
    pub mac: Option<String>,
    /// Pool from which the interface gets one more address, and its gateway unless `gateways` has one of that family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Addresses with their prefix lengths, at most 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_items = 64, example = json!(["10.0.0.2/16"])))]
    pub addresses: Option<Vec<String>>,
    /// Next hops of the default routes, at most one per address family.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(max_items = 2, example = json!(["10.0.0.1"])))]
    pub gateways: Vec<String>,
    /// MTU in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1280, maximum = 65535))]
    pub mtu: Option<u32>,
}

/// Reaction to a guest that differs from its declaration. `off`: the guest is not looked at again after its
/// configuration was applied. `report`: the VM is shown as `drifted`. `repair`: the configuration is applied again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum DriftPolicy {
    /// The guest is not looked at again after its configuration was applied.
    Off,
    /// The VM is shown as `drifted`.
    #[default]
    Report,
    /// The configuration is applied again.
    Repair,
}

impl DriftPolicy {
    /// Returns the policy's name in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Report => "report",
            Self::Repair => "repair",
        }
    }
}

/// A declaration with its revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StoredDeclaration {
    /// The declaration.
    pub declaration: Declaration,
    /// Revision of the declared state in which the declaration was last changed; the `ETag` has the same number.
    pub revision: u64,
}

/// All declarations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeclarationList {
    /// Declarations, sorted by name.
    pub declarations: Vec<StoredDeclaration>,
    /// Revision of the declared state.
    pub revision: u64,
    /// True if the declared state is kept in a database and outlives the daemon.
    pub persistent: bool,
}

/// Content of a declarations file, and how to apply it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// Pools to create or replace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<Pool>,
    /// Declarations to create or replace; at most 10,000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub declarations: Vec<Declaration>,
    /// True to remove all pools and declarations that are not in the request.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub prune: bool,
    /// True to report the changes without making them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// Kind of a declared item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum DeclaredKind {
    /// An address pool.
    Pool,
    /// A declaration.
    Declaration,
}

/// Action on a declared item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ApplyAction {
    /// The item is new.
    Created,
    /// The item existed and differs.
    Updated,
    /// The item is not in the request, which prunes.
    Removed,
    /// The item is as it was.
    Unchanged,
}

impl ApplyAction {
    /// Returns the action's name in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Removed => "removed",
            Self::Unchanged => "unchanged",
        }
    }
}

/// Difference in one field of a declared item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FieldDiff {
    /// Path of the field: `network.pool`.
    pub field: String,
    /// Old value as JSON. Absent if the field is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// New value as JSON. Absent if the field is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// Result for one declared item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AppliedItem {
    /// Kind of the item.
    pub kind: DeclaredKind,
    /// Name of the item.
    pub name: String,
    /// Action on the item.
    pub action: ApplyAction,
    /// Differences, field by field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diff: Vec<FieldDiff>,
}

/// Result of an apply. With `dry_run`: the changes that it would make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ApplyReport {
    /// True if anything was changed, or with `dry_run` would be.
    pub changed: bool,
    /// True if nothing was changed because the request asked for a dry run.
    pub dry_run: bool,
    /// Items of the request, and with `prune` those that are removed.
    pub items: Vec<AppliedItem>,
    /// VMs whose effective configuration is another one now; at most 1000.
    pub vms: Vec<VmName>,
    /// Number of these VMs.
    pub vms_total: u64,
    /// Remarks, such as the first ten declarations that match no VM.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Revision of the declared state after the apply.
    pub revision: u64,
}

/// Agreement of a VM with its declarations. `pending`: the configuration was not applied yet. `applied`: the guest has
/// it. `drifted`: the guest had it, and has other settings now. `failed`: it cannot be applied; `reason` says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ConfigState {
    /// The configuration was not applied yet.
    Pending,
    /// The guest has the configuration.
    Applied,
    /// The guest had the configuration, and has other settings now.
    Drifted,
    /// The configuration cannot be applied.
    Failed,
}

impl ConfigState {
    /// Returns the condition's name in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Applied => "applied",
            Self::Drifted => "drifted",
            Self::Failed => "failed",
        }
    }
}

/// Details of `configured`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ConfigCondition {
    /// Time of the last change of `configured`.
    pub since: Timestamp,
    /// Reason of `drifted` or `failed`, or of a retry while `pending`. May contain text from the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Highest revision among the declarations and pools of this configuration.
    pub generation: u64,
}

/// A field of an effective configuration, and the declaration that it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FieldOrigin {
    /// Path of the field: `network.dns`, `labels.app`.
    pub field: String,
    /// Name of the declaration, or `pool NAME`.
    pub from: String,
}

/// Configuration that a VM must have, from all declarations that match it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VmConfig {
    /// Name of the VM.
    pub vm: VmName,
    /// True if the VM exists.
    pub exists: bool,
    /// Declarations that match, the most specific one first.
    pub declarations: Vec<String>,
    /// Labels of the VM.
    pub labels: Labels,
    /// Reaction to drift.
    pub drift: DriftPolicy,
    /// Declared clock offset above which the guest's clock is set; 0: never. Absent: as in minionsd's configuration file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_limit_ms: Option<u64>,
    /// Declared restore steps. Absent: as in minionsd's configuration file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<Box<DeclaredRestore>>,
    /// Network and hostname as they are sent to the agent. Absent if no declaration has any, or if an address is still to
    /// be leased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkRequest>,
    /// Origin of each field.
    pub origins: Vec<FieldOrigin>,
    /// Leases of the VM.
    pub leases: Vec<Lease>,
    /// Reason why the configuration cannot be applied to any guest: fields of several declarations that contradict each
    /// other, or an address that is not available.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Declarations that have each field. Only with `explain=true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<ConfigExplanation>,
    /// Agreement of the VM with this configuration. Absent if the VM does not exist, or if there is nothing to apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configured: Option<ConfigState>,
    /// Details of `configured`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<ConfigCondition>,
    /// Highest revision among the declarations and pools of this configuration.
    pub generation: u64,
}
