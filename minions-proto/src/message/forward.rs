//! `forward_open`: a connection to a TCP port or a Unix socket inside the guest (feature
//! `forward`).
//!
//! After an `ok` reply, the connection is in channel mode with the messages of
//! [`forward`](crate::forward).

use super::call::Call;
use crate::error::Invalid;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Deadline for the connection to the target if the request has none, in milliseconds.
pub const DEFAULT_FORWARD_TIMEOUT_MS: u64 = 10_000;

/// Largest deadline for the connection to the target, in milliseconds.
pub const MAX_FORWARD_TIMEOUT_MS: u64 = 60_000;

/// Longest path of a Unix socket, in bytes (`sun_path` without the final NUL).
const MAX_UNIX_PATH: usize = 107;

/// Longest host name of a target, in bytes.
const MAX_HOST: usize = 253;

/// Request to connect to a target in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardOpen {
    /// Target: `tcp:HOST:PORT` or `unix:/PATH`; see [`ForwardTarget`].
    pub target: String,
    /// Deadline for the connection to the target, in milliseconds. Absent: 10 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

impl ForwardOpen {
    /// Returns the parsed target, after all fields were checked.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for `target` or `timeout_ms`.
    pub fn target(&self) -> Result<ForwardTarget, Invalid> {
        match self.timeout_ms {
            Some(ms) if !(1..=MAX_FORWARD_TIMEOUT_MS).contains(&ms) => {
                let reason = format!("is {ms}: must be 1 to {MAX_FORWARD_TIMEOUT_MS}");
                Err(Invalid::new("timeout_ms", reason))
            }
            _ => self.target.parse(),
        }
    }
}

impl Call for ForwardOpen {
    type Reply = ForwardOpened;
    const TYPE: &'static str = "forward_open";
    const IDEMPOTENT: bool = false;
}

/// Reply to [`ForwardOpen`]: the target accepted the connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardOpened {
    /// Address that the agent connected to: `127.0.0.1:80`, or the path of the socket.
    pub address: String,
}

/// Target of a forward.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ForwardTarget {
    /// `tcp:127.0.0.1:80`, `tcp:[::1]:80`.
    Address(IpAddr, u16),
    /// `tcp:localhost:80`, or another name that the agent resolves.
    Host(String, u16),
    /// `unix:/run/service.sock`.
    Unix(String),
}

impl FromStr for ForwardTarget {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = |reason: &str| Invalid::value("target", text, reason);
        match text.split_once(':') {
            Some(("tcp", address)) => tcp(address)
                .ok_or_else(|| invalid("must be tcp:HOST:PORT, with a port from 1 to 65535")),
            Some(("unix", path)) if path.len() > MAX_UNIX_PATH => {
                let reason = format!(
                    "has a path of {} bytes: must have at most {MAX_UNIX_PATH}",
                    path.len()
                );
                Err(Invalid::new("target", reason))
            }
            Some(("unix", path)) if is_socket_path(path) => Ok(Self::Unix(path.to_owned())),
            Some(("unix", _)) => {
                Err(invalid("must be unix: followed by an absolute path without NUL"))
            }
            _ => Err(invalid("must be tcp:HOST:PORT or unix:/PATH")),
        }
    }
}

fn tcp(address: &str) -> Option<ForwardTarget> {
    let (host, port) = address.rsplit_once(':')?;
    let port = port_of(port).filter(|port| *port != 0)?;
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match (bracketed, host.parse()) {
        (Some(v6), _) => v6.parse().ok().map(|v6| ForwardTarget::Address(IpAddr::V6(v6), port)),
        (None, Ok(v4)) => Some(ForwardTarget::Address(IpAddr::V4(v4), port)),
        (None, Err(_)) => {
            is_host(host).then(|| ForwardTarget::Host(host.to_ascii_lowercase(), port))
        }
    }
}

/// Parses a port of decimal digits only, also 0.
pub(super) fn port_of(digits: &str) -> Option<u16> {
    let is_decimal = digits.bytes().all(|digit| digit.is_ascii_digit());
    is_decimal.then(|| digits.parse().ok()).flatten()
}

/// Reports whether a Unix socket can have this path: absolute, without NUL, and short enough for
/// the kernel.
pub(super) fn is_socket_path(path: &str) -> bool {
    path.starts_with('/') && path.len() <= MAX_UNIX_PATH && !path.contains('\0')
}

fn is_host(host: &str) -> bool {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    (1..=MAX_HOST).contains(&host.len()) && host.bytes().all(is_name)
}

impl fmt::Display for ForwardTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V4(v4), port) => write!(f, "tcp:{v4}:{port}"),
            Self::Address(IpAddr::V6(v6), port) => write!(f, "tcp:[{v6}]:{port}"),
            Self::Host(host, port) => write!(f, "tcp:{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn targets_are_addresses_names_and_paths() {
        for text in ["tcp:127.0.0.1:80", "tcp:[::1]:443", "tcp:localhost:1", "unix:/run/a b.sock"] {
            assert_eq!(text.parse::<ForwardTarget>().unwrap().to_string(), text);
        }
        let upper: ForwardTarget = "tcp:LOCALHOST:80".parse().unwrap();
        assert_eq!(upper, ForwardTarget::Host("localhost".into(), 80));
    }

    #[test]
    fn a_target_of_another_form_is_rejected_with_its_field() {
        let long = format!("unix:/{}", "x".repeat(107));
        for text in [
            "",
            "80",
            "tcp:80",
            "tcp::80",
            "tcp:::1:80",
            "tcp:[::1]:0",
            "tcp:[127.0.0.1]:80",
            "tcp:localhost:",
            "tcp:localhost:65536",
            "tcp:localhost:+80",
            "tcp:a b:80",
            "udp:127.0.0.1:53",
            "unix:",
            "unix:run/x",
            "unix:/a\0b",
            &long,
        ] {
            assert_eq!(text.parse::<ForwardTarget>().unwrap_err().field, "target", "{text:?}");
        }
        for ms in [0, MAX_FORWARD_TIMEOUT_MS + 1] {
            let open = ForwardOpen { target: "tcp:localhost:80".into(), timeout_ms: Some(ms) };
            assert_eq!(open.target().unwrap_err().field, "timeout_ms");
        }
    }

    proptest! {
        #[test]
        fn a_parsed_target_is_the_same_after_display(text in "(tcp|unix):.{0,40}") {
            if let Ok(target) = text.parse::<ForwardTarget>() {
                prop_assert_eq!(target.to_string().parse::<ForwardTarget>().unwrap(), target);
            }
        }
    }
}
