//! Checked address pools.

use crate::free_addresses::FreeAddresses;
use ipnet::IpNet;
use minions_api::pool::{Lease, LeaseKind, Pool};
use minions_proto::Invalid;
use minions_proto::message::{ChangeNetwork, InterfaceChange};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Default of `release_after_secs`.
pub const RELEASE_AFTER_SECS: u64 = 3600;

/// Largest value of `release_after_secs`: a year.
const MAX_RELEASE_AFTER_SECS: u64 = 365 * 24 * 3600;

/// Largest number of entries in `reserved`.
const MAX_RESERVED: usize = 256;

/// A pool whose values are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressPool {
    declared: Pool,
    subnet: IpNet,
    first: u128,
    last: u128,
    gateway: Option<IpAddr>,
    reserved: Vec<(u128, u128)>,
}

/// Returns an address as a number.
#[must_use]
pub fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl AddressPool {
    /// Checks a pool. `field` is its path in the request, or empty.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for the first wrong field.
    pub fn parse(field: &str, pool: &Pool) -> Result<Self, Invalid> {
        let at = |name: &str| {
            if field.is_empty() { name.to_owned() } else { format!("{field}.{name}") }
        };
        check_name(&at("name"), &pool.name)?;
        let subnet = parse_subnet(&at("subnet"), &pool.subnet)?;
        let (first, last) = match &pool.range {
            None => host_range(subnet),
            Some(range) => range_in(&at("range"), range, subnet)?,
        };
        let gateway = pool.gateway.as_deref();
        let gateway = gateway.map(|text| address_in(&at("gateway"), text, subnet)).transpose()?;
        if pool.reserved.len() > MAX_RESERVED {
            let reason =
                format!("has {} entries: give at most {MAX_RESERVED}", pool.reserved.len());
            return Err(Invalid::new(at("reserved"), reason));
        }
        let reserved = pool.reserved.iter().enumerate().map(|(index, text)| {
            let field = at(&format!("reserved[{index}]"));
            if text.contains('-') {
                return range_in(&field, text, subnet);
            }
            address_in(&field, text, subnet).map(|address| (number(address), number(address)))
        });
        let reserved = reserved.collect::<Result<_, _>>()?;
        let secs = pool.release_after_secs.unwrap_or(RELEASE_AFTER_SECS);
        if secs > MAX_RELEASE_AFTER_SECS {
            let reason = format!("is {secs}: must be 0 to {MAX_RELEASE_AFTER_SECS}");
            return Err(Invalid::new(at("release_after_secs"), reason));
        }
        let checked = Self { declared: pool.clone(), subnet, first, last, gateway, reserved };
        if checked.all_addresses().first(|_| false).is_none() {
            let reason = "has no address to give: widen it, or reserve fewer addresses";
            return Err(Invalid::new(at("range"), reason));
        }
        checked.check_settings(&at)?;
        Ok(checked)
    }

    /// Checks the settings that the pool gives to guests, as the agent does.
    fn check_settings(&self, at: &impl Fn(&str) -> String) -> Result<(), Invalid> {
        let sample = self.all_addresses().first(|_| false).map(|one| self.address(one));
        let addresses = sample.map(|one| vec![self.with_prefix(one)]);
        let gateways = self.declared.gateway.iter().cloned().collect();
        let interface =
            InterfaceChange { addresses, gateways, mtu: self.declared.mtu, ..Default::default() };
        let dns = Some(self.declared.dns.clone()).filter(|dns| !dns.is_empty());
        let change = ChangeNetwork { interfaces: vec![interface], dns, ..Default::default() };
        change.plan().map(|_| ()).map_err(|invalid| {
            let own = match invalid.field.strip_prefix("interfaces[0].") {
                Some("mtu") => "mtu",
                Some(field) if field.starts_with("gateways") => "gateway",
                Some(_) => "range",
                None => &invalid.field,
            };
            Invalid::new(at(own), invalid.reason.clone())
        })
    }

    /// Returns the pool as it was declared.
    #[must_use]
    pub fn declared(&self) -> &Pool {
        &self.declared
    }

    /// Returns the name of the pool.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.declared.name
    }

    /// Returns the gateway.
    #[must_use]
    pub fn gateway(&self) -> Option<IpAddr> {
        self.gateway
    }

    /// Returns the milliseconds for which a lease is kept after its VM is gone.
    #[must_use]
    pub fn release_after_ms(&self) -> u64 {
        self.declared.release_after_secs.unwrap_or(RELEASE_AFTER_SECS) * 1000
    }

    /// Returns all addresses of the range without those that the pool keeps from VMs. Other pools of the subnet may keep
    /// more.
    #[must_use]
    pub fn all_addresses(&self) -> FreeAddresses {
        let mut all = FreeAddresses::range(self.first, self.last);
        self.remove_kept(&mut all);
        all
    }

    /// Removes the addresses that no pool of the subnet gives: the gateway, and the reserved ones.
    pub(crate) fn remove_kept(&self, addresses: &mut FreeAddresses) {
        if let Some(gateway) = self.gateway.map(number) {
            addresses.remove(gateway, gateway);
        }
        for (first, last) in &self.reserved {
            addresses.remove(*first, *last);
        }
    }

    /// Reports whether no pool of the subnet gives the address: it is the gateway, or reserved.
    #[must_use]
    pub fn keeps(&self, address: IpAddr) -> bool {
        let is_reserved =
            |(first, last): &(u128, u128)| (*first..=*last).contains(&number(address));
        self.gateway == Some(address)
            || (self.contains(address) && self.reserved.iter().any(is_reserved))
    }

    /// Reports whether both pools have the same subnet.
    #[must_use]
    pub fn has_subnet_of(&self, other: &Self) -> bool {
        self.subnet == other.subnet
    }

    /// Reports whether the address is in the pool's subnet.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.subnet.contains(&address)
    }

    /// Reports whether the address is in the pool's range.
    #[must_use]
    pub fn is_in_range(&self, address: IpAddr) -> bool {
        self.contains(address) && (self.first..=self.last).contains(&number(address))
    }

    /// Reports whether the lease depends on the pool: its address is in the range, or reserved in the subnet.
    #[must_use]
    pub fn gave(&self, lease: &Lease) -> bool {
        match lease.kind {
            LeaseKind::Pool => self.is_in_range(lease.address),
            LeaseKind::Reserved => self.contains(lease.address),
            LeaseKind::Static | LeaseKind::Duplicate => false,
        }
    }

    /// Reports whether a lease of this address and kind is possible in the pool.
    #[must_use]
    pub fn has_place_for(&self, lease: &Lease) -> bool {
        match lease.kind {
            LeaseKind::Pool => {
                self.is_in_range(lease.address) && self.gateway != Some(lease.address)
            }
            LeaseKind::Reserved => self.can_be_reserved(lease.address),
            LeaseKind::Static | LeaseKind::Duplicate => true,
        }
    }

    /// Reports whether a host in the subnet, other than the gateway, can have the address.
    #[must_use]
    pub fn can_be_reserved(&self, address: IpAddr) -> bool {
        let (first, last) = host_range(self.subnet);
        self.contains(address)
            && (first..=last).contains(&number(address))
            && self.gateway != Some(address)
    }

    /// Returns the first and the last address of the subnet.
    #[must_use]
    pub fn subnet_ends(&self) -> (IpAddr, IpAddr) {
        (self.subnet.network(), self.subnet.broadcast())
    }

    /// Returns the first and the last address of the range.
    #[must_use]
    pub fn range_ends(&self) -> (IpAddr, IpAddr) {
        (self.address(self.first), self.address(self.last))
    }

    /// Returns the address with this number.
    #[must_use]
    pub fn address(&self, number: u128) -> IpAddr {
        match self.subnet {
            // The number is that of an IPv4 address.
            IpNet::V4(_) => Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX)).into(),
            IpNet::V6(_) => Ipv6Addr::from_bits(number).into(),
        }
    }

    /// Formats an address with the prefix length of the subnet.
    #[must_use]
    pub fn with_prefix(&self, address: IpAddr) -> String {
        format!("{address}/{}", self.subnet.prefix_len())
    }

    /// Explains why two pools cannot exist together; `None` if they can. Pools of one link have the same subnet and
    /// different ranges.
    #[must_use]
    pub fn conflict_with(&self, other: &Self) -> Option<String> {
        if !self.subnet.contains(&other.subnet) && !other.subnet.contains(&self.subnet) {
            return None;
        }
        if self.subnet != other.subnet {
            return Some(format!(
                "the subnet {} of the pool {:?} overlaps {} of the pool {:?}: use the same subnet with different \
                 ranges, or another subnet",
                self.subnet,
                self.name(),
                other.subnet,
                other.name()
            ));
        }
        (self.first <= other.last && other.first <= self.last).then(|| {
            format!(
                "the ranges of the pools {:?} and {:?} overlap: use different ranges of {}",
                self.name(),
                other.name(),
                self.subnet
            )
        })
    }
}

fn check_name(field: &str, name: &str) -> Result<(), Invalid> {
    let starts_well = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if starts_well && name.len() <= 63 && name.bytes().all(valid) {
        return Ok(());
    }
    let reason = "must be 1 to 63 characters of A-Z a-z 0-9 . _ -, the first a letter or digit";
    Err(Invalid::value(field, name, reason))
}

fn parse_subnet(field: &str, text: &str) -> Result<IpNet, Invalid> {
    let net: IpNet = text
        .parse()
        .map_err(|_| Invalid::value(field, text, "must be a subnet, as 10.0.0.0/16"))?;
    if net.trunc() != net {
        let reason = format!("is an address within a subnet; the subnet is {}", net.trunc());
        return Err(Invalid::value(field, text, &reason));
    }
    Ok(net)
}

/// Returns the addresses of the subnet that a host can have.
fn host_range(subnet: IpNet) -> (u128, u128) {
    let (first, last) = (number(subnet.network()), number(subnet.broadcast()));
    match subnet {
        IpNet::V4(net) if net.prefix_len() < 31 => (first + 1, last - 1),
        // The first address of an IPv6 subnet belongs to its routers.
        IpNet::V6(net) if net.prefix_len() < 127 => (first + 1, last),
        IpNet::V4(_) | IpNet::V6(_) => (first, last),
    }
}

fn address_in(field: &str, text: &str, subnet: IpNet) -> Result<IpAddr, Invalid> {
    let address = text.parse().map_err(|_| Invalid::value(field, text, "must be an IP address"))?;
    let (first, last) = host_range(subnet);
    if subnet.contains(&address) && (first..=last).contains(&number(address)) {
        return Ok(address);
    }
    let reason = format!("must be an address of a host in the subnet {subnet}");
    Err(Invalid::value(field, text, &reason))
}

fn range_in(field: &str, text: &str, subnet: IpNet) -> Result<(u128, u128), Invalid> {
    let form = "must be two addresses with a hyphen, as 10.0.0.2-10.0.0.9";
    let (first, last) = text.split_once('-').ok_or_else(|| Invalid::value(field, text, form))?;
    let first = number(address_in(field, first.trim(), subnet)?);
    let last = number(address_in(field, last.trim(), subnet)?);
    if first > last {
        return Err(Invalid::value(field, text, "must begin with the lower address"));
    }
    Ok((first, last))
}

#[cfg(test)]
mod tests;
