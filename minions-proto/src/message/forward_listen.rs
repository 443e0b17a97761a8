//! `forward_listen` and `forward_accept`: a listening socket in the guest, whose connections the host
//! takes (feature `forward_listen`).
//!
//! After the `ok` reply to `forward_listen`, the connection is in channel mode with the messages of
//! [`forward_listener`](crate::forward_listener). After the `ok` reply to `forward_accept`, it is in
//! the same mode as after `forward_open`.

use super::call::Call;
use super::forward::ForwardOpened;
use crate::error::Invalid;
use crate::message::forward::{is_socket_path, port_of};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// Longest file name of a private socket, in bytes.
const MAX_PRIVATE_NAME: usize = 32;

/// Longest owner, in bytes: a user name of 256 bytes, a colon and a group name.
const MAX_OWNER: usize = 513;

/// Longest id of a listener, in bytes.
const MAX_ID: usize = 64;

/// Request to listen in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardListen {
    /// Address: `tcp:ADDRESS:PORT`, `tcp:localhost:PORT`, `unix:/PATH` or `private:NAME`; see
    /// [`ForwardAddress`].
    pub address: String,
    /// `USER` or `USER:GROUP` that owns a Unix socket, and with whose rights it is created. Absent:
    /// the agent's user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

impl ForwardListen {
    /// Returns the parsed address, after all fields were checked.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for `address` or `owner`.
    pub fn address(&self) -> Result<ForwardAddress, Invalid> {
        let address: ForwardAddress = self.address.parse()?;
        match (&address, &self.owner) {
            (ForwardAddress::Tcp(_) | ForwardAddress::Localhost(_), Some(_)) => {
                Err(Invalid::new("owner", "is only for Unix sockets: leave it out for a TCP port"))
            }
            (_, Some(owner)) if owner.is_empty() || owner.len() > MAX_OWNER => {
                Err(Invalid::new("owner", format!("must have 1 to {MAX_OWNER} bytes")))
            }
            _ => Ok(address),
        }
    }
}

impl Call for ForwardListen {
    type Reply = ForwardListening;
    const TYPE: &'static str = "forward_listen";
    const IDEMPOTENT: bool = false;
}

/// Reply to [`ForwardListen`]: the agent listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardListening {
    /// Id of the listener, for [`ForwardAccept`].
    pub listener: ListenerId,
    /// Address on which the agent listens, with the chosen port or path: `tcp:127.0.0.1:8080`,
    /// `unix:/run/app.sock`.
    pub address: ForwardAddress,
}

/// Request to take a connection that waits on a listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardAccept {
    /// The listener.
    pub listener: ListenerId,
    /// Number of the connection, as the agent reported it.
    pub connection: u64,
}

impl Call for ForwardAccept {
    type Reply = ForwardOpened;
    const TYPE: &'static str = "forward_accept";
    const IDEMPOTENT: bool = false;
}

/// Id of a listener, chosen by the agent at random, so that it is never the id of another listener.
/// Form: 1 to 64 of `a-z`, `0-9` and `-`, which need no escaping anywhere.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ListenerId(String);

impl FromStr for ListenerId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let is_plain =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if (1..=MAX_ID).contains(&text.len()) && text.bytes().all(is_plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Invalid::new("listener", "must be 1 to 64 of a-z, 0-9 and -"))
        }
    }
}

impl TryFrom<String> for ListenerId {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<ListenerId> for String {
    fn from(id: ListenerId) -> Self {
        id.0
    }
}

impl fmt::Display for ListenerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Address of a listening socket in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ForwardAddress {
    /// `tcp:127.0.0.1:8080`, `tcp:[::1]:0`. The agent chooses a free port for port 0.
    Tcp(SocketAddr),
    /// `tcp:localhost:8080`: the loopback address, IPv4 if the guest has it.
    Localhost(u16),
    /// `unix:/run/app.sock`. The file has the mode 0600.
    Unix(String),
    /// `private:agent`: a Unix socket with this file name in a new directory that only its owner may
    /// enter. The listener's end removes both.
    Private(String),
}

impl FromStr for ForwardAddress {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = |reason: &str| Invalid::value("address", text, reason);
        match text.split_once(':') {
            Some(("tcp", address)) => tcp(address).ok_or_else(|| {
                invalid("must be tcp:ADDRESS:PORT or tcp:localhost:PORT, with an IP address")
            }),
            Some(("unix", path)) if is_socket_path(path) => Ok(Self::Unix(path.to_owned())),
            Some(("unix", _)) => {
                Err(invalid("must be unix: followed by an absolute path of at most 107 bytes"))
            }
            Some(("private", name)) if is_private_name(name) => Ok(Self::Private(name.to_owned())),
            Some(("private", _)) => {
                Err(invalid("must be private: followed by 1 to 32 of a-z, 0-9, - and _"))
            }
            _ => Err(invalid("must be tcp:ADDRESS:PORT, unix:/PATH or private:NAME")),
        }
    }
}

fn tcp(address: &str) -> Option<ForwardAddress> {
    let (host, port) = address.rsplit_once(':')?;
    let port = port_of(port)?;
    if host.eq_ignore_ascii_case("localhost") {
        return Some(ForwardAddress::Localhost(port));
    }
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let ip: IpAddr = match bracketed {
        Some(v6) => IpAddr::V6(v6.parse().ok()?),
        None => IpAddr::V4(host.parse().ok()?),
    };
    Some(ForwardAddress::Tcp(SocketAddr::new(ip, port)))
}

fn is_private_name(name: &str) -> bool {
    let is_plain = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_')
    };
    (1..=MAX_PRIVATE_NAME).contains(&name.len()) && name.bytes().all(is_plain)
}

impl TryFrom<String> for ForwardAddress {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<ForwardAddress> for String {
    fn from(address: ForwardAddress) -> Self {
        address.to_string()
    }
}

impl fmt::Display for ForwardAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Localhost(port) => write!(f, "tcp:localhost:{port}"),
            Self::Unix(path) => write!(f, "unix:{path}"),
            Self::Private(name) => write!(f, "private:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_are_ports_paths_and_private_names() {
        for text in [
            "tcp:127.0.0.1:0",
            "tcp:[::1]:443",
            "tcp:0.0.0.0:8080",
            "tcp:localhost:0",
            "unix:/run/a b.sock",
            "private:ssh-agent",
        ] {
            assert_eq!(text.parse::<ForwardAddress>().unwrap().to_string(), text);
        }
        let upper: ForwardAddress = "tcp:LOCALHOST:80".parse().unwrap();
        assert_eq!(upper, ForwardAddress::Localhost(80));
    }

    #[test]
    fn an_address_of_another_form_is_rejected_with_its_field() {
        let long = format!("unix:/{}", "x".repeat(107));
        for text in [
            "",
            "8080",
            "tcp:8080",
            "tcp::8080",
            "tcp:example.org:80",
            "tcp:[127.0.0.1]:80",
            "tcp:::1:80",
            "tcp:127.0.0.1:65536",
            "tcp:127.0.0.1:+1",
            "tcp:127.0.0.1:",
            "unix:relative",
            "unix:/a\0b",
            &long,
            "private:",
            "private:a/b",
            "private:..",
            "private:0123456789012345678901234567890123",
        ] {
            assert_eq!(text.parse::<ForwardAddress>().unwrap_err().field, "address", "{text:?}");
        }
    }

    #[test]
    fn an_owner_is_for_unix_sockets_only() {
        let listen = |address: &str, owner: Option<&str>| {
            let owner = owner.map(str::to_owned);
            ForwardListen { address: address.into(), owner }.address()
        };
        assert!(listen("unix:/run/x", Some("eve")).is_ok());
        assert!(listen("private:agent", Some("1000:1000")).is_ok());
        assert!(listen("tcp:localhost:0", None).is_ok());
        let long = "x".repeat(514);
        for (address, owner) in [
            ("tcp:localhost:0", "eve"),
            ("tcp:127.0.0.1:1", "eve"),
            ("unix:/x", ""),
            ("unix:/x", &long),
        ] {
            assert_eq!(listen(address, Some(owner)).unwrap_err().field, "owner", "{address}");
        }
    }

    #[test]
    fn a_listener_id_needs_no_escaping() {
        for text in ["a", "8c0b7f9e-6a57-4d3f", &"x".repeat(64)] {
            assert_eq!(text.parse::<ListenerId>().unwrap().to_string(), text);
        }
        for text in ["", "A", "a/b", "a b", "a&b", "ä", &"x".repeat(65)] {
            assert!(text.parse::<ListenerId>().is_err(), "{text:?}");
            let json = serde_json::to_string(text).unwrap();
            assert!(serde_json::from_str::<ListenerId>(&json).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_parsed_address_is_the_same_after_display(text in "(tcp|unix|private):.{0,40}") {
            if let Ok(address) = text.parse::<ForwardAddress>() {
                prop_assert_eq!(address.to_string().parse::<ForwardAddress>().unwrap(), address);
            }
        }
    }
}
