//! Checks after a network change.

use serde::{Deserialize, Serialize};

/// Check after a network change. `link`: the interfaces are up and have a carrier. `addresses`: the
/// addresses are usable, and no other host on the link has them. `route`: the kernel reaches the
/// next hop of each default route directly over its interface. `gateway`: the next hop of each
/// default route answers (ARP, neighbour discovery). `dns`: a name server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The interfaces are up and have a carrier.
    Link,
    /// The addresses are present and usable, and no other host on the link has them.
    Addresses,
    /// The kernel reaches the next hop of each default route over its interface, without another
    /// hop.
    Route,
    /// The next hop of each default route answers (ARP, neighbour discovery).
    Gateway,
    /// A name server answers.
    Dns,
}

impl Check {
    /// All checks, in the order of their execution.
    pub const ALL: [Self; 5] = [Self::Link, Self::Addresses, Self::Route, Self::Gateway, Self::Dns];

    /// Returns the check's name in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Addresses => "addresses",
            Self::Route => "route",
            Self::Gateway => "gateway",
            Self::Dns => "dns",
        }
    }
}
