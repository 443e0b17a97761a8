//! Address pools and their leases: `/pools`.

use crate::timestamp::Timestamp;
use crate::vm_name::VmName;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Addresses that the daemon gives to VMs, from one subnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Name of the pool: letters, digits, `.`, `_`, `-`. In `PUT /pools/{pool}` it may be left out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[cfg_attr(feature = "openapi", schema(example = "default"))]
    pub name: String,
    /// Subnet of all the pool's addresses; VMs get its prefix length.
    #[cfg_attr(feature = "openapi", schema(example = "10.0.0.0/16"))]
    pub subnet: String,
    /// First and last address to give. Absent: all addresses of the subnet that a host can have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "10.0.0.2-10.0.255.254"))]
    pub range: Option<String>,
    /// Next hop of the default route, in the subnet; no VM gets this address. Absent: no default route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "10.0.0.1"))]
    pub gateway: Option<String>,
    /// Name servers of VMs whose declarations have none; at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(max_items = 16, example = json!(["1.1.1.1"])))]
    pub dns: Vec<String>,
    /// MTU in bytes of interfaces whose declarations have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1280, maximum = 65535))]
    pub mtu: Option<u32>,
    /// Addresses and ranges within the subnet that no VM gets from the pool; at most 256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(max_items = 256, example = json!(["10.0.0.9", "10.0.1.0-10.0.1.255"])))]
    pub reserved: Vec<String>,
    /// Seconds for which a lease is kept after its VM is gone; default: 3600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(maximum = 31_536_000))]
    pub release_after_secs: Option<u64>,
}

/// A pool with its figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PoolStatus {
    /// The pool as it was declared.
    pub pool: Pool,
    /// Revision of the declared state in which the pool was last changed; the `ETag` has the same number.
    pub revision: u64,
    /// Number of addresses in the range that have a lease.
    pub leased: u64,
    /// Number of addresses that are free; 18446744073709551615 if there are more.
    pub free: u64,
}

/// All pools.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PoolList {
    /// Pools, sorted by name.
    pub pools: Vec<PoolStatus>,
}

/// Kind of a lease. `pool`: chosen from a pool for a VM. `static`: a declaration has this address. `reserved`: kept by
/// `POST /pools/{pool}/leases` until it is released. `duplicate`: another host on the link has the address, as the guest of
/// `vm` found out; no VM gets it for an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum LeaseKind {
    /// Chosen from a pool for a VM.
    Pool,
    /// A declaration has this address.
    Static,
    /// Kept until it is released.
    Reserved,
    /// Another host on the link has the address.
    Duplicate,
}

impl LeaseKind {
    /// Returns the kind's name in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pool => "pool",
            Self::Static => "static",
            Self::Reserved => "reserved",
            Self::Duplicate => "duplicate",
        }
    }
}

/// Claim of a VM to an address. No two leases have the same address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Lease {
    /// The address.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "10.0.0.2"))]
    pub address: IpAddr,
    /// VM that holds the lease, or found the duplicate. Absent for a reservation that keeps the address from all VMs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<VmName>,
    /// Name or MAC address of the VM's interface as declared; empty for the first Ethernet interface.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub interface: String,
    /// Kind of the lease.
    pub kind: LeaseKind,
    /// Time since which no VM needs the lease, or at which the duplicate was found. Absent while it is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unused_since: Option<Timestamp>,
}

/// Leases of one pool, sorted by address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LeaseList {
    /// Leases whose addresses are in the pool's subnet.
    pub leases: Vec<Lease>,
}

/// Reservation of an address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ReserveRequest {
    /// Address in the pool's subnet. Absent: the next free address; `vm` is then required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "10.0.0.7"))]
    pub address: Option<IpAddr>,
    /// VM that gets the address; it need not exist yet. Absent: no VM gets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<VmName>,
    /// Interface of the VM, as in its declaration. Absent or empty: the interface that has the address already, else the
    /// only one that the VM's declarations have in this pool, else the first Ethernet interface.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub interface: String,
}
