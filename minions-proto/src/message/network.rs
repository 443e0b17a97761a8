//! `configure_network`: give the guest its network.

use super::{Call, Done};
use crate::cidr::{InterfaceAddress, check_gateway, check_server};
use crate::error::Invalid;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// More name servers than any resolver asks (glibc stops at three).
pub const MAX_DNS_SERVERS: usize = 16;

/// The request. The guest's first Ethernet interface gets exactly this: other addresses and default
/// routes go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigureNetwork {
    /// Address with prefix length: `10.0.0.2/16`, `2001:db8::2/64`.
    pub ip: String,
    /// Default route, in the same family, and reachable from `ip`.
    pub gateway: String,
    /// Name servers. Empty: the guest's resolver configuration stays as it is.
    #[serde(default)]
    pub dns: Vec<String>,
}

impl Call for ConfigureNetwork {
    type Reply = Done;
    const TYPE: &'static str = "configure_network";
    const IDEMPOTENT: bool = true;
}

/// A [`ConfigureNetwork`] in which every value has been checked, alone and against the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPlan {
    /// The interface's one address.
    pub address: InterfaceAddress,
    /// The default route's next hop.
    pub gateway: IpAddr,
    /// Name servers, in order of preference.
    pub dns: Vec<IpAddr>,
}

impl ConfigureNetwork {
    /// Checks the whole request. Both ends do it: the host to refuse early, the guest because it
    /// trusts nobody.
    ///
    /// # Errors
    ///
    /// The first field that can't be, and what would be right.
    pub fn plan(&self) -> Result<NetworkPlan, Invalid> {
        let address = InterfaceAddress::parse("ip", &self.ip)?;
        let gateway = check_gateway("gateway", &self.gateway, &address)?;
        if self.dns.len() > MAX_DNS_SERVERS {
            let reason = format!("has {} servers; give at most {MAX_DNS_SERVERS}", self.dns.len());
            return Err(Invalid::new("dns", reason));
        }
        let dns = self
            .dns
            .iter()
            .enumerate()
            .map(|(at, server)| check_server(&format!("dns[{at}]"), server))
            .collect::<Result<_, _>>()?;
        Ok(NetworkPlan { address, gateway, dns })
    }
}
