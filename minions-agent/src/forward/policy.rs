//! Targets that the agent may connect to, and addresses on which it may listen.

use ipnet::IpNet;
use minions_proto::message::{ForwardAddress, ForwardTarget};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// Permitted targets and listening addresses, in addition to loopback addresses and Unix sockets, which are always
/// permitted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForwardPolicy {
    rules: Vec<ForwardRule>,
    listen_rules: Vec<ListenRule>,
}

/// Permitted listening address.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ListenRule {
    /// `listen:10.0.0.0/8`: any port of these addresses.
    Network(IpNet),
    /// `listen:10.0.0.1:443`, `listen:0.0.0.0:8080`.
    Address(SocketAddr),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum ForwardRule {
    /// `10.0.0.0/8`: any port of these addresses.
    Network(IpNet),
    /// `10.0.0.1:443`, `[fd00::1]:443`.
    Address(SocketAddr),
    /// `db.internal:5432`, by its name only.
    Host(String, u16),
}

/// An entry of `--allow-forward` that has none of the accepted forms.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is neither HOST:PORT nor a network such as 10.0.0.0/8, nor listen: with an ADDRESS:PORT or a network"
)]
pub struct InvalidForwardRule {
    text: String,
}

impl FromStr for ForwardPolicy {
    type Err = InvalidForwardRule;

    /// Parses a list such as `10.0.0.0/8,db.internal:5432,listen:0.0.0.0:8080`.
    fn from_str(list: &str) -> Result<Self, Self::Err> {
        let mut policy = Self::default();
        for text in list.split(',') {
            let invalid = || InvalidForwardRule { text: text.to_owned() };
            match text.strip_prefix("listen:") {
                Some(listen) => policy.listen_rules.push(listen_rule(listen).ok_or_else(invalid)?),
                None => policy.rules.push(rule(text).ok_or_else(invalid)?),
            }
        }
        Ok(policy)
    }
}

fn listen_rule(text: &str) -> Option<ListenRule> {
    if let Ok(network) = text.parse::<IpNet>() {
        return Some(ListenRule::Network(network));
    }
    let address: SocketAddr = text.parse().ok()?;
    (address.port() != 0).then_some(ListenRule::Address(address))
}

fn rule(text: &str) -> Option<ForwardRule> {
    if let Ok(network) = text.parse::<IpNet>() {
        return Some(ForwardRule::Network(network));
    }
    match format!("tcp:{text}").parse().ok()? {
        ForwardTarget::Address(address, port) => {
            Some(ForwardRule::Address(SocketAddr::new(address, port)))
        }
        ForwardTarget::Host(host, port) => Some(ForwardRule::Host(host, port)),
        ForwardTarget::Unix(_) => None,
    }
}

impl ForwardPolicy {
    /// Reports whether the agent may connect to an address.
    pub(super) fn permits_address(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        ip.is_loopback()
            || self.rules.iter().any(|rule| match rule {
                ForwardRule::Network(network) => network.contains(&ip),
                ForwardRule::Address(known) => {
                    (known.ip().to_canonical(), known.port()) == (ip, address.port())
                }
                ForwardRule::Host(..) => false,
            })
    }

    /// Reports whether the agent may listen on an address.
    pub(super) fn permits_listening(&self, address: &ForwardAddress) -> bool {
        let address = match address {
            ForwardAddress::Localhost(_) | ForwardAddress::Unix(_) | ForwardAddress::Private(_) => {
                return true;
            }
            ForwardAddress::Tcp(address) => address,
        };
        let ip = address.ip().to_canonical();
        ip.is_loopback()
            || self.listen_rules.iter().any(|rule| match rule {
                ListenRule::Network(network) => network.contains(&ip),
                ListenRule::Address(known) => {
                    (known.ip().to_canonical(), known.port()) == (ip, address.port())
                }
            })
    }

    /// Reports whether the agent may resolve a name and connect to its addresses, whatever they are.
    pub(super) fn permits_host(&self, host: &str, port: u16) -> bool {
        let named = |rule: &ForwardRule| matches!(rule, ForwardRule::Host(known, known_port) if known == host && *known_port == port);
        self.rules.iter().any(named)
    }
}

/// Addresses of `localhost`, in the order in which they are tried. The name is not resolved, because the guest's
/// files or name servers could give it any address.
pub(super) const LOCALHOST: [IpAddr; 2] =
    [IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)];

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(policy: &str, address: &str) -> bool {
        let policy = if policy.is_empty() { Ok(ForwardPolicy::default()) } else { policy.parse() };
        policy.unwrap().permits_address(address.parse().unwrap())
    }

    #[test]
    fn only_loopback_is_permitted_by_default() {
        for address in ["127.0.0.1:80", "127.9.9.9:80", "[::1]:80", "[::ffff:127.0.0.1]:80"] {
            assert!(permits("", address), "{address}");
        }
        for address in ["0.0.0.0:80", "[::]:80", "10.0.0.1:80", "[fd00::1]:80", "128.0.0.1:80"] {
            assert!(!permits("", address), "{address}");
        }
        assert!(!ForwardPolicy::default().permits_host("db.internal", 5432));
    }

    #[test]
    fn rules_permit_exactly_what_they_name() {
        let rules = "10.0.0.0/8,192.168.0.1:443,db.internal:5432";
        assert!(permits(rules, "10.9.9.9:1") && permits(rules, "192.168.0.1:443"));
        assert!(permits(rules, "[::ffff:10.0.0.1]:1"));
        assert!(!permits(rules, "192.168.0.1:444") && !permits(rules, "11.0.0.1:1"));
        let policy: ForwardPolicy = rules.parse().unwrap();
        assert!(policy.permits_host("db.internal", 5432));
        assert!(!policy.permits_host("db.internal", 5433) && !policy.permits_host("db", 5432));
        for text in
            ["", "10.0.0.1", "a:0", "10.0.0.0/8,", "unix:/x", "listen:", "listen:80", "listen:a:80"]
        {
            assert!(text.parse::<ForwardPolicy>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn listening_is_permitted_on_loopback_and_on_what_listen_rules_name() {
        let permits = |policy: &str, address: &str| {
            let policy =
                if policy.is_empty() { Ok(ForwardPolicy::default()) } else { policy.parse() };
            policy.unwrap().permits_listening(&address.parse().unwrap())
        };
        for address in [
            "tcp:localhost:0",
            "tcp:127.0.0.1:80",
            "tcp:127.1.2.3:0",
            "tcp:[::1]:80",
            "unix:/run/x",
            "private:agent",
        ] {
            assert!(permits("", address), "{address}");
        }
        // A rule for targets does not permit listening.
        for policy in ["", "0.0.0.0/0,10.0.0.1:80"] {
            for address in ["tcp:0.0.0.0:80", "tcp:[::]:80", "tcp:10.0.0.1:80"] {
                assert!(!permits(policy, address), "{policy} {address}");
            }
        }
        let rules = "listen:0.0.0.0:8080,listen:10.0.0.0/8";
        assert!(permits(rules, "tcp:0.0.0.0:8080") && permits(rules, "tcp:10.1.2.3:0"));
        assert!(!permits(rules, "tcp:0.0.0.0:8081") && !permits(rules, "tcp:11.0.0.1:8080"));
        assert!(
            !rules.parse::<ForwardPolicy>().unwrap().permits_address(([10, 0, 0, 1], 1).into())
        );
    }
}
