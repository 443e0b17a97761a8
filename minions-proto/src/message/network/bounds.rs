//! Bounds of a network request.

use crate::error::Invalid;

/// Largest number of name servers in a request; no resolver uses as many (glibc uses three).
pub const MAX_DNS_SERVERS: usize = 16;

/// Largest number of search domains in a request; by default no resolver uses as many.
pub const MAX_SEARCH_DOMAINS: usize = 16;

/// Largest number of interfaces in a request.
pub const MAX_INTERFACES: usize = 16;

/// Largest number of addresses of one interface in a request.
pub const MAX_ADDRESSES: usize = 64;

/// Largest number of routes in a request.
pub const MAX_ROUTES: usize = 256;

/// Bounds of an MTU, in bytes. Below the lower bound the kernel removes IPv6 from the interface,
/// and its state could not be restored.
pub const MTU: std::ops::RangeInclusive<u32> = 1280..=65_535;

/// Bounds of `confirm_within_ms`: 1 second to 1 hour.
pub const CONFIRM_WITHIN_MS: std::ops::RangeInclusive<u64> = 1_000..=3_600_000;

/// Checks the length of a list.
pub(super) fn at_most(field: &str, what: &str, count: usize, most: usize) -> Result<(), Invalid> {
    if count <= most {
        return Ok(());
    }
    Err(Invalid::new(field, format!("has {count} {what}; give at most {most}")))
}
