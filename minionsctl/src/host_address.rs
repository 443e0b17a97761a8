//! Address of minionsd, in the forms that users type.

use reqwest::Url;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// Port of minionsd, for an address without one.
const DEFAULT_PORT: u16 = 7070;

/// Address of minionsd: `http://…`, `https://…` or `unix://PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostAddress(String);

/// Text that is no address of minionsd.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid address of minionsd {0:?}: must be http://HOST:PORT, https://HOST:PORT or unix://PATH; HOST[:PORT] and \
     /PATH are also accepted"
)]
pub(crate) struct InvalidHost(pub(crate) String);

impl HostAddress {
    /// Returns the address over loopback TCP on the default port.
    pub(crate) fn loopback() -> Self {
        Self(format!("http://127.0.0.1:{DEFAULT_PORT}"))
    }

    /// Returns the address of a Unix socket.
    pub(crate) fn unix(path: &str) -> Self {
        Self(format!("unix://{path}"))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Reports whether the address is a Unix socket or a loopback address.
    pub(crate) fn is_of_this_machine(&self) -> bool {
        let url = Url::parse(&self.0).ok();
        self.0.starts_with("unix://")
            || url.as_ref().and_then(Url::host_str).is_some_and(is_loopback)
    }
}

impl fmt::Display for HostAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for HostAddress {
    type Err = InvalidHost;

    fn from_str(text: &str) -> Result<Self, InvalidHost> {
        let address = if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            (!path.is_empty()).then(|| format!("unix://{path}"))
        } else if text.starts_with('/') || text.starts_with("./") || text.starts_with("../") {
            Some(format!("unix://{text}"))
        } else if let Some(address) = text.strip_prefix("tcp://") {
            bare(address.trim_end_matches('/'))
        } else if text.starts_with("http://") || text.starts_with("https://") {
            is_base(text).then(|| text.trim_end_matches('/').to_owned())
        } else {
            bare(text)
        };
        address.map(Self).ok_or_else(|| InvalidHost(text.to_owned()))
    }
}

/// Converts `HOST`, `HOST:PORT`, `[IPV6]:PORT` or an IPv6 address. Only loopback addresses are plain HTTP, because
/// minionsd serves others only with TLS.
fn bare(text: &str) -> Option<String> {
    let (host, port) = match text.parse::<Ipv6Addr>() {
        Ok(address) => (format!("[{address}]"), DEFAULT_PORT),
        Err(_) => match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host.to_owned(), port.parse().ok()?),
            Some(_) | None => (text.to_owned(), DEFAULT_PORT),
        },
    };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_[]:".contains(&byte);
    let scheme = if is_loopback(&host) { "http" } else { "https" };
    let url = format!("{scheme}://{host}:{port}");
    (!host.is_empty() && host.bytes().all(is_plain) && is_base(&url)).then_some(url)
}

/// Reports whether a host name or address, also in brackets, is one of this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Reports whether the URL has a host, and nothing that the paths of requests would be appended to: no query, no user.
fn is_base(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| {
        url.has_host()
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_the_forms_that_users_type() {
        for (text, address) in [
            ("http://127.0.0.1:7070", "http://127.0.0.1:7070"),
            ("http://localhost/", "http://localhost"),
            ("https://host.example:8443", "https://host.example:8443"),
            ("https://proxy.example/minions/", "https://proxy.example/minions"),
            ("unix:///run/x.sock", "unix:///run/x.sock"),
            ("unix:/run/x.sock", "unix:///run/x.sock"),
            ("unix://x.sock", "unix://x.sock"),
            ("/run/x.sock", "unix:///run/x.sock"),
            ("./x.sock", "unix://./x.sock"),
            ("localhost", "http://localhost:7070"),
            ("127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("127.0.0.2", "http://127.0.0.2:7070"),
            ("::1", "http://[::1]:7070"),
            ("[::1]:8080", "http://[::1]:8080"),
            ("[::1]", "http://[::1]:7070"),
            ("tcp://localhost:8080", "http://localhost:8080"),
            ("tcp://host.example", "https://host.example:7070"),
            ("host.example", "https://host.example:7070"),
            ("host.example:8443", "https://host.example:8443"),
        ] {
            assert_eq!(text.parse(), Ok(HostAddress(address.into())), "{text}");
        }
    }

    #[test]
    fn other_text_is_refused_with_the_forms_that_exist() {
        for text in [
            "",
            "unix://",
            "unix:",
            "ftp://x",
            "http://",
            "https://",
            "http://u:p@host",
            "http://host?a=b",
            "tcp://",
            "host:port",
            "host:70000",
            "host:",
            ":7070",
            "a b",
            "user@host",
            "host/path",
        ] {
            let error = text.parse::<HostAddress>().unwrap_err().to_string();
            assert!(error.contains("https://HOST:PORT or unix://PATH"), "{text}: {error}");
        }
    }
}
