//! Reasons why connecting to minionsd fails, each with one sentence and one advice. Imports nothing of this crate:
//! [`Failure`](crate::failure::Failure) contains it.

use std::error::Error;
use std::io;

/// Advice for a path that the kernel rejects (`minions_proto::hybrid::MAX_PATH_LEN`).
pub(crate) const PATH_TOO_LONG: &str = "the path of a Unix socket has at most 107 bytes: use a shorter one, relative \
                                        to its directory or through a symbolic link";

/// Reason why no connection to minionsd exists.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectFailure {
    /// The Unix socket does not exist.
    #[error("the socket does not exist")]
    NoSocket,
    /// The permissions of the Unix socket exclude this user.
    #[error("permission denied")]
    Denied,
    /// The port or the socket has no listener.
    #[error("connection refused: no process listens there")]
    Refused,
    /// The path of the Unix socket is too long.
    #[error("the path is too long")]
    PathTooLong,
    /// The name has no address.
    #[error("the host name cannot be resolved")]
    UnknownName,
    /// The host does not answer, or is not reachable.
    #[error("the host does not answer")]
    NoRoute,
    /// The server of an `https://` address speaks plain text.
    #[error("the server does not speak TLS")]
    NotTls,
    /// The server of an `http://` address does not speak HTTP.
    #[error("the server does not speak plain HTTP")]
    NotHttp,
    /// The certificate is not trusted, or is for another name.
    #[error("the certificate of the server is not trusted")]
    Certificate(#[source] rustls::Error),
    /// The server requires a client certificate, or refuses the one it got.
    #[error("the server refuses the TLS connection")]
    TlsRefused(#[source] rustls::Error),
    /// Any other reason.
    #[error(transparent)]
    Other(reqwest::Error),
}

impl ConnectFailure {
    /// Finds the reason in the causes of an error of the HTTP client. Returns the error itself if it does not concern
    /// the connection.
    pub(crate) fn of(host: &str, error: reqwest::Error) -> Result<Self, reqwest::Error> {
        let is_connect = error.is_connect();
        let mut cause = error.source();
        while let Some(reason) = cause {
            if let Some(tls) = tls_error(reason)
                && (is_connect || is_about_certificates(tls))
            {
                return Ok(Self::of_tls(tls));
            }
            if is_connect && let Some(found) = Self::of_cause(reason) {
                return Ok(found);
            }
            // hyper has no public kind for this error.
            if host.starts_with("http://") && reason.to_string().contains("invalid HTTP version") {
                return Ok(Self::NotHttp);
            }
            cause = reason.source();
        }
        if !is_connect {
            return Err(error);
        }
        Ok(if error.is_timeout() { Self::NoRoute } else { Self::Other(error) })
    }

    fn of_cause(cause: &(dyn Error + 'static)) -> Option<Self> {
        // The resolver's error has no public type.
        if cause.to_string() == "dns error" {
            return Some(Self::UnknownName);
        }
        match cause.downcast_ref::<io::Error>()?.kind() {
            io::ErrorKind::NotFound => Some(Self::NoSocket),
            io::ErrorKind::PermissionDenied => Some(Self::Denied),
            io::ErrorKind::ConnectionRefused => Some(Self::Refused),
            io::ErrorKind::InvalidInput => Some(Self::PathTooLong),
            io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable => Some(Self::NoRoute),
            _ => None,
        }
    }

    fn of_tls(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidMessage(_) => Self::NotTls,
            rustls::Error::InvalidCertificate(_) => Self::Certificate(error.clone()),
            other => Self::TlsRefused(other.clone()),
        }
    }

    /// Reports whether a later attempt may succeed.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            // A daemon that starts sets the permissions of its socket after it has created it.
            Self::NoSocket
            | Self::Denied
            | Self::Refused
            | Self::UnknownName
            | Self::NoRoute
            | Self::Other(_) => true,
            Self::PathTooLong
            | Self::NotTls
            | Self::NotHttp
            | Self::Certificate(_)
            | Self::TlsRefused(_) => false,
        }
    }

    /// Returns what to do.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::NoSocket | Self::Refused | Self::Other(_) => {
                "is minionsd running? --host or MINIONS_HOST selects another address"
            }
            Self::Denied => {
                "use this socket as root or as a member of the group minions; over TCP \
                 (--host http://127.0.0.1:7070) every user may read"
            }
            Self::PathTooLong => PATH_TOO_LONG,
            Self::UnknownName => "check the name in --host, MINIONS_HOST or the context",
            Self::NoRoute => {
                "is the host on, and does a firewall permit the port? --host or MINIONS_HOST selects another address"
            }
            Self::NotTls => "if minionsd serves plain HTTP there, use http:// in place of https://",
            Self::NotHttp => "if minionsd serves TLS there, use https:// in place of http://",
            Self::Certificate(_) => {
                "--ca-file or MINIONS_CA_FILE names the CA bundle; the name in the address must be one of the \
                 certificate"
            }
            Self::TlsRefused(_) => {
                "if the server requires a client certificate, --cert-file or MINIONS_CERT_FILE names it"
            }
        }
    }
}

/// Reports whether the server has refused this client's certificate, or requires one. With TLS 1.3 such an alert comes after
/// the connection is established. Other TLS errors on an established connection say nothing about what the server did.
fn is_about_certificates(error: &rustls::Error) -> bool {
    use rustls::AlertDescription as Alert;
    let rustls::Error::AlertReceived(alert) = error else { return false };
    matches!(
        alert,
        Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::CertificateRequired
            | Alert::UnknownCA
            | Alert::AccessDenied
    )
}

/// Returns the TLS error that the error is or contains. An I/O error does not return its content as its source.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let content = || error.downcast_ref::<io::Error>()?.get_ref();
    error.downcast_ref().or_else(|| tls_error(content()?))
}
