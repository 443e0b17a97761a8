//! Arguments of `configure-network` and `confirm-network`.

use super::duration::duration;
use clap::Args;
use minions_api::VmName;
use minions_api::network::{InterfaceRequest, RouteRequest};
use std::path::PathBuf;
use std::time::Duration;

/// Arguments of `configure-network`. A base agent supports `--ip`, `--gateway` and `--dns` only; the other
/// options require an agent with the feature `network2`.
#[derive(Debug, Args)]
pub(crate) struct ConfigureNetworkArgs {
    /// Name of the VM
    pub(crate) vm: Option<VmName>,
    /// Address with prefix length of the first Ethernet interface: 10.0.0.2/16. Not with --interface
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["interface", "file"])]
    pub(crate) ip: Option<String>,
    /// Next hop of the default route. Not with --interface
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["interface", "file"])]
    pub(crate) gateway: Option<String>,
    /// Name servers, separated by commas
    #[arg(long, value_delimiter = ',', conflicts_with = "file")]
    pub(crate) dns: Vec<String>,
    /// An interface with all of its addresses, repeatable: "eth0 10.0.0.2/16 2001:db8::2/64 via 10.0.0.1 mtu 1420".
    /// The first word is a name, a MAC address, or `default`
    #[arg(long, value_parser = interface, conflicts_with = "file")]
    pub(crate) interface: Vec<InterfaceRequest>,
    /// A route, repeatable; other routes of these interfaces are removed:
    /// "10.1.0.0/16 via 10.0.0.9 dev eth0 metric 100 onlink"
    #[arg(long, value_parser = route, conflicts_with = "file")]
    pub(crate) route: Vec<RouteRequest>,
    /// Largest packet, for every interface without its own
    #[arg(long, value_name = "BYTES", conflicts_with = "file")]
    pub(crate) mtu: Option<u32>,
    /// Search domains, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "DOMAIN", conflicts_with = "file")]
    pub(crate) search: Vec<String>,
    /// The guest's hostname, until the next boot
    #[arg(long, conflicts_with = "file")]
    pub(crate) hostname: Option<String>,
    /// Conditions that must hold afterwards, or everything is rolled back: link, addresses, route, gateway, dns, or
    /// none [default: all except dns with --interface, otherwise none]
    #[arg(long, value_delimiter = ',', value_name = "CHECK", conflicts_with = "file")]
    pub(crate) verify: Vec<String>,
    /// Roll everything back after this time (`30s`) unless `confirm-network` comes first
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "file")]
    pub(crate) confirm_within: Option<Duration>,
    /// Only print what would change
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Change the network of a VM although declarations configure it
    #[arg(long = "override")]
    pub(crate) overrides: bool,
    /// Take the whole request from a JSON file, in the form of PUT /vms/{vm}/network; - is standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

/// Arguments of `confirm-network`.
#[derive(Debug, Args)]
pub(crate) struct ConfirmNetworkArgs {
    /// Name of the VM
    #[arg(value_name = "VM")]
    vm_or_id: String,
    /// Id of the change, as configure-network printed it
    id: Option<String>,
}

impl ConfirmNetworkArgs {
    /// Splits the arguments into VM and id. With `--socket`, the only argument is the id.
    pub(crate) fn vm_and_id(self) -> (Option<String>, String) {
        match self.id {
            Some(id) => (Some(self.vm_or_id), id),
            None => (None, self.vm_or_id),
        }
    }
}

/// Parses an interface: its name, MAC or `default`, then addresses, `via GATEWAY` and `mtu BYTES`.
fn interface(text: &str) -> Result<InterfaceRequest, String> {
    let mut words = text.split_ascii_whitespace();
    let mut interface = InterfaceRequest::default();
    match words.next().ok_or("must begin with an interface, as in \"eth0 10.0.0.2/16\"")? {
        "default" => {}
        word if word.contains('/') => {
            return Err("must begin with the interface, or `default`".into());
        }
        word if word.contains(':') => interface.mac = Some(word.to_owned()),
        word => interface.name = Some(word.to_owned()),
    }
    while let Some(word) = words.next() {
        match word {
            "via" => interface.gateways.push(value("via", words.next())?),
            "mtu" => interface.mtu = Some(number("mtu", words.next())?),
            address if address.contains('/') => {
                interface.addresses.get_or_insert_default().push(address.to_owned());
            }
            other => return Err(format!("{other:?} is not an address with a prefix length")),
        }
    }
    Ok(interface)
}

/// Parses a route in the syntax of `ip route add`.
fn route(text: &str) -> Result<RouteRequest, String> {
    let mut words = text.split_ascii_whitespace();
    let to =
        words.next().ok_or("must begin with a destination, as in \"10.1.0.0/16 via 10.0.0.9\"")?;
    let mut route = RouteRequest { to: to.to_owned(), ..RouteRequest::default() };
    while let Some(word) = words.next() {
        match word {
            "via" => route.via = Some(value("via", words.next())?),
            "dev" => route.interface = Some(value("dev", words.next())?),
            "metric" => route.metric = Some(number("metric", words.next())?),
            "onlink" => route.on_link = Some(true),
            other => {
                return Err(format!("unknown word {other:?}: must be via, dev, metric or onlink"));
            }
        }
    }
    Ok(route)
}

fn value(name: &str, word: Option<&str>) -> Result<String, String> {
    word.map(str::to_owned).ok_or_else(|| format!("`{name}` needs a value"))
}

fn number(name: &str, word: Option<&str>) -> Result<u32, String> {
    value(name, word)?.parse().map_err(|_| format!("`{name}` needs a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_parsed_word_by_word() {
        let read = interface("eth0 10.0.0.2/16 2001:db8::2/64 via 10.0.0.1 via fe80::1 mtu 1420");
        let read = read.unwrap();
        assert_eq!((read.name.as_deref(), read.mtu), (Some("eth0"), Some(1420)));
        assert_eq!(read.addresses.unwrap(), ["10.0.0.2/16", "2001:db8::2/64"]);
        assert_eq!(read.gateways, ["10.0.0.1", "fe80::1"]);
        assert_eq!(interface("52:54:00:12:34:56").unwrap().mac.unwrap(), "52:54:00:12:34:56");
        assert_eq!(interface("default mtu 1400").unwrap().addresses, None);
        for text in ["", "10.0.0.2/16", "eth0 via", "eth0 mtu much", "eth0 10.0.0.2"] {
            assert!(interface(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_route_is_parsed_in_the_syntax_of_ip() {
        let read = route("10.1.0.0/16 via 10.0.0.9 dev eth0 metric 100 onlink").unwrap();
        assert_eq!((read.to.as_str(), read.via.as_deref()), ("10.1.0.0/16", Some("10.0.0.9")));
        assert_eq!((read.interface.as_deref(), read.metric), (Some("eth0"), Some(100)));
        assert_eq!(read.on_link, Some(true));
        for text in ["", "10.1.0.0/16 over eth0", "10.1.0.0/16 metric -1", "10.1.0.0/16 dev"] {
            assert!(route(text).is_err(), "{text}");
        }
    }
}
