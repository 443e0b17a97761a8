//! Errors in the configuration, each naming the setting.

use minions_api::vm_pattern::InvalidPattern;
use minions_proto::hybrid::MAX_PATH_LEN;
use minions_proto::port::InvalidPort;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Error in the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file is not TOML, or contains an unknown setting or an invalid value.
    #[error("{} is not a valid configuration file", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Position and cause.
        source: Box<toml::de::Error>,
    },
    /// Without TLS and a token, everyone on the network could run commands in every VM.
    #[error(
        "`listen` is {0}: an address other than loopback (127.0.0.1, [::1]) requires TLS (`tls_cert`, `tls_key`) \
         and a token (`token_file`)"
    )]
    NotLoopback(SocketAddr),
    /// Only a part of the TLS files is given.
    #[error("set `tls_cert` and `tls_key` together; `tls_client_ca` requires both")]
    HalfTls,
    /// All listeners are turned off.
    #[error("`listen` and `unix_socket` are both `none`: enable at least one listener")]
    NoListener,
    /// The path is too long for a Unix socket.
    #[error(
        "`unix_socket` has {len} bytes: the path of a Unix socket has at most {}; use a shorter one",
        MAX_PATH_LEN
    )]
    SocketPathTooLong {
        /// Length of the path, in bytes.
        len: usize,
    },
    /// The value differs from the form that browsers send in `Origin`.
    #[error(
        "`allowed_origins[{index}]` is {origin:?}: must be http://HOST or https://HOST in lower case, with \
         :PORT unless it is the scheme's default, and without a path or trailing slash"
    )]
    NotAnOrigin {
        /// Index in the list.
        index: usize,
        /// The configured value.
        origin: String,
    },
    /// Reading over TCP requires a token that does not exist.
    #[error(
        "`tcp_read` is \"token\" but there is no token: set `token_file`, or `listen = \"none\"`"
    )]
    NoTokenToReadWith,
    /// The log does not confirm that a line was written.
    #[error(
        "`audit` is \"required\" but entries go to the log, which does not confirm them: set `audit_log`"
    )]
    NoRequiredAuditFile,
    /// Neither a user nor a group of this host.
    #[error(
        "`socket_owners[{index}]` is {owner:?}: must be a user of this host, by name or number, or `:` and a \
         group"
    )]
    UnknownOwner {
        /// Index in the list.
        index: usize,
        /// The configured value.
        owner: String,
    },
    /// A number that is not a VSOCK port.
    #[error("`{field}` is {number}: {source}")]
    InvalidPort {
        /// The setting.
        field: String,
        /// The configured value.
        number: i64,
        /// The accepted values.
        #[source]
        source: InvalidPort,
    },
    /// An interval between samples that is too short or too long.
    #[error("`{field}` is {ms}: must be 1000 to 3600000, or 0 for no samples")]
    InvalidSampleInterval {
        /// The setting.
        field: String,
        /// The configured value.
        ms: u64,
    },
    /// A text that is not a pattern of VM names.
    #[error("`{field}` is {pattern:?}: {source}")]
    InvalidPattern {
        /// The setting.
        field: String,
        /// The configured value.
        pattern: String,
        /// The accepted values.
        #[source]
        source: InvalidPattern,
    },
    /// A setting of `restore` that is invalid.
    #[error("`{field}` {reason}")]
    InvalidRestore {
        /// The setting.
        field: String,
        /// The reason, as the rest of the sentence.
        reason: String,
    },
    /// A number that is out of range.
    #[error("`{field}` is {value}: must be {allowed}")]
    OutOfRange {
        /// The setting.
        field: &'static str,
        /// The configured value.
        value: u64,
        /// The allowed range.
        allowed: &'static str,
    },
}
