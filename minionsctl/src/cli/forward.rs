//! Arguments of `forward`: listening addresses and targets.

use clap::Args;
use minions_api::VmName;
use minions_proto::Invalid;
use minions_proto::message::{ForwardAddress, ForwardTarget};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// Arguments of `forward`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  minionsctl forward web-1 8080:80               127.0.0.1:8080 here is port 80 in the guest
  minionsctl forward web-1 0:80 0:5432           free ports, which are printed
  minionsctl forward web-1 0.0.0.0:8080:80       also for other hosts
  minionsctl forward web-1 8080:/run/app.sock    a Unix socket in the guest
  minionsctl forward web-1 ./db.sock:5432        a Unix socket here
  minionsctl forward web-1 -R 8080:3000          127.0.0.1:8080 in the guest is port 3000 here
  minionsctl forward web-1 -R /run/db.sock:5432  a Unix socket in the guest")]
pub(crate) struct ForwardArgs {
    /// Name of the VM
    pub(crate) vm: VmName,
    /// Address here and target in the guest
    #[arg(
        required_unless_present_any = ["local", "remote"],
        help = "[BIND:]PORT:TARGET or PATH:TARGET; TARGET is [HOST:]PORT or the path of a Unix socket in the guest. \
                PORT 0 chooses a free port",
        value_name = "FORWARD", value_parser = clap::value_parser!(ForwardSpec))]
    pub(crate) forwards: Vec<ForwardSpec>,
    /// Further address here and target in the guest, repeatable
    #[arg(short = 'L', long = "local", value_name = "FORWARD", value_parser = clap::value_parser!(ForwardSpec))]
    pub(crate) local: Vec<ForwardSpec>,
    /// Address in the guest and target here, repeatable
    #[arg(
        short = 'R', long = "remote",
        help = "Listen in the guest: [BIND:]PORT:TARGET or PATH:TARGET; TARGET is [HOST:]PORT or the path of a Unix \
                socket here. Repeatable",
        value_name = "FORWARD", value_parser = clap::value_parser!(ReverseSpec))]
    pub(crate) remote: Vec<ReverseSpec>,
    /// Owner of Unix sockets in the guest (default: the agent's user)
    #[arg(long, value_name = "USER[:GROUP]", requires = "remote")]
    pub(crate) owner: Option<String>,
}

/// Pair of a listening address in the guest and a target on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReverseSpec {
    pub(crate) listen: ForwardAddress,
    pub(crate) target: HostTarget,
}

/// Target on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HostTarget {
    /// Port of a host, `localhost` by default.
    Tcp(String, u16),
    /// Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for HostTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "tcp:{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for ReverseSpec {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (listen, target) = split(text).ok_or_else(|| {
            let reason = "must be [BIND:]PORT:TARGET or PATH:TARGET, such as 8080:3000";
            Invalid::value("forward", text, reason)
        })?;
        let listen = match listen {
            ListenAddress::Tcp(address) => ForwardAddress::Tcp(address),
            ListenAddress::Unix(path) => format!("unix:{}", path.display()).parse()?,
        };
        Ok(Self { listen, target: parse_host_target(target)? })
    }
}

/// Parses a target on this machine: PORT, HOST:PORT or the path of a Unix socket, also with `tcp:` or `unix:`.
fn parse_host_target(text: &str) -> Result<HostTarget, Invalid> {
    let path = text.strip_prefix("unix:").or_else(|| text.starts_with(['/', '.']).then_some(text));
    match path {
        Some("") => Err(Invalid::value("target", text, "must name the path of a Unix socket")),
        Some(path) => Ok(HostTarget::Unix(path.into())),
        None => match parse_target(text)? {
            ForwardTarget::Address(ip, port) => Ok(HostTarget::Tcp(ip.to_string(), port)),
            ForwardTarget::Host(host, port) => Ok(HostTarget::Tcp(host, port)),
            ForwardTarget::Unix(path) => Ok(HostTarget::Unix(path.into())),
        },
    }
}

/// Pair of a listening address on this machine and a target in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ForwardSpec {
    pub(crate) listen: ListenAddress,
    pub(crate) target: ForwardTarget,
}

/// Address on which minionsctl listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ListenAddress {
    /// TCP address; 127.0.0.1 by default.
    Tcp(SocketAddr),
    /// Unix socket.
    Unix(PathBuf),
}

impl FromStr for ForwardSpec {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (listen, target) = split(text).ok_or_else(|| {
            let reason = "must be [BIND:]PORT:TARGET or PATH:TARGET, such as 8080:80";
            Invalid::value("forward", text, reason)
        })?;
        Ok(Self { listen, target: parse_target(target)? })
    }
}

/// Splits a forward into the listening address and the text of the target.
fn split(text: &str) -> Option<(ListenAddress, &str)> {
    let path = text.strip_prefix("unix:").or_else(|| text.starts_with(['/', '.']).then_some(text));
    if let Some(text) = path {
        let (path, target) = text.split_once(':')?;
        return (!path.is_empty()).then(|| (ListenAddress::Unix(path.into()), target));
    }
    let (bind, rest): (IpAddr, &str) = if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once("]:")?;
        (IpAddr::V6(address.parse().ok()?), rest)
    } else {
        let (first, rest) = text.split_once(':')?;
        match first.parse::<u16>() {
            Ok(_) => (Ipv4Addr::LOCALHOST.into(), text),
            Err(_) => (
                if first == "localhost" {
                    Ipv4Addr::LOCALHOST.into()
                } else {
                    first.parse().ok()?
                },
                rest,
            ),
        }
    };
    let (port, target) = rest.split_once(':')?;
    Some((ListenAddress::Tcp(SocketAddr::new(bind, port.parse().ok()?)), target))
}

/// Parses a target: PORT, HOST:PORT, the path of a Unix socket, or the form that the REST interface accepts.
fn parse_target(text: &str) -> Result<ForwardTarget, Invalid> {
    if text.starts_with("tcp:") || text.starts_with("unix:") {
        text.parse()
    } else if text.starts_with('/') {
        format!("unix:{text}").parse()
    } else if text.contains(':') {
        format!("tcp:{text}").parse()
    } else {
        format!("tcp:localhost:{text}").parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (ListenAddress, String) {
        let spec: ForwardSpec = text.parse().unwrap();
        (spec.listen, spec.target.to_string())
    }

    fn tcp(address: &str) -> ListenAddress {
        ListenAddress::Tcp(address.parse().unwrap())
    }

    #[test]
    fn a_forward_has_an_address_here_and_a_target_in_the_guest() {
        for (text, listen, target) in [
            ("8080:80", tcp("127.0.0.1:8080"), "tcp:localhost:80"),
            ("0:127.0.0.1:80", tcp("127.0.0.1:0"), "tcp:127.0.0.1:80"),
            ("0.0.0.0:8080:80", tcp("0.0.0.0:8080"), "tcp:localhost:80"),
            ("localhost:1:2", tcp("127.0.0.1:1"), "tcp:localhost:2"),
            ("[::1]:8080:[::1]:80", tcp("[::1]:8080"), "tcp:[::1]:80"),
            ("8080:/run/x.sock", tcp("127.0.0.1:8080"), "unix:/run/x.sock"),
            ("8080:unix:/run/x.sock", tcp("127.0.0.1:8080"), "unix:/run/x.sock"),
            ("./x.sock:80", ListenAddress::Unix("./x.sock".into()), "tcp:localhost:80"),
            ("unix:x.sock:tcp:h:1", ListenAddress::Unix("x.sock".into()), "tcp:h:1"),
        ] {
            assert_eq!(parsed(text), (listen, target.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_forward_of_another_form_is_refused() {
        for text in
            ["", "80", ":80", "8080:", "x:80", "65536:80", "[::1]:80", "8080:0", "/a", "a:b:c:d"]
        {
            assert!(text.parse::<ForwardSpec>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_reverse_forward_has_an_address_in_the_guest_and_a_target_here() {
        let parsed = |text: &str| {
            let spec: ReverseSpec = text.parse().unwrap();
            (spec.listen.to_string(), spec.target.to_string())
        };
        for (text, listen, target) in [
            ("8080:3000", "tcp:127.0.0.1:8080", "tcp:localhost:3000"),
            ("0:db.example:5432", "tcp:127.0.0.1:0", "tcp:db.example:5432"),
            ("[::1]:1:[::1]:2", "tcp:[::1]:1", "tcp:[::1]:2"),
            ("0.0.0.0:80:./app.sock", "tcp:0.0.0.0:80", "unix:./app.sock"),
            ("/run/x.sock:3000", "unix:/run/x.sock", "tcp:localhost:3000"),
            ("unix:/run/x.sock:unix:rel", "unix:/run/x.sock", "unix:rel"),
        ] {
            assert_eq!(parsed(text), (listen.to_owned(), target.to_owned()), "{text}");
        }
        // A path in the guest is absolute, because the agent has no working directory of the caller.
        for text in ["", "3000", "8080:", "8080:0", "./x.sock:80", "unix:x:80", "8080:unix:"] {
            assert!(text.parse::<ReverseSpec>().is_err(), "{text:?}");
        }
    }
}
