//! The daemon's configuration. A flag overrides the environment, which overrides the file, which overrides the
//! default.

mod agent_ports;
mod arguments;
mod choices;
mod error;
mod file;
mod restore_rules;
mod sample_intervals;
mod socket_owner;

pub use agent_ports::{AgentPorts, PortRule};
pub use arguments::{Args, Command};
pub use choices::{AuditRule, LogFormat, OptionalSetting, TcpOperate, TcpRead};
pub use error::ConfigError;
pub use minions_api::vm_pattern::{InvalidPattern, VmPattern};
pub use restore_rules::{ClockLimit, RestorePolicy, RestoreRule, RestoreRules};
pub use sample_intervals::{SampleIntervals, SampleRule};
pub use socket_owner::SocketOwner;

use clap::Parser;
use file::{ConfigFile, parse, read};
use minions_proto::hybrid::MAX_PATH_LEN;
use minions_proto::message::{MAX_REATTACH_GRACE_MS, MIN_REATTACH_GRACE_MS};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Configuration file that is read if it exists and `--config` is not given.
const DEFAULT_FILE: &str = "/etc/minions/minionsd.toml";

const DEFAULT_LISTEN: &str = "127.0.0.1:7070";
const DEFAULT_UNIX_SOCKET: &str = "/run/minions/minionsd.sock";
const DEFAULT_SOCKET_DIR: &str = "/run/minions";
const DEFAULT_OPERATOR_GROUP: &str = "minions";
/// Name of the token file in systemd's state directory (`StateDirectory=`).
const CREATED_TOKEN: &str = "token";
/// Name of the database in systemd's state directory.
const STATE_FILE: &str = "minionsd.db";

const DEFAULT_POOL_SIZE: usize = 8;

/// Upper limit of `pool_size`: a VMM serves 1023 connections per VM, and other tools need some of them.
const MAX_POOL_SIZE: usize = 512;

/// Allowed values of `clock_limit_ms`. A probe measures a clock to a few milliseconds, so a smaller limit would
/// react to noise; a limit above one day has no use.
const CLOCK_LIMITS: std::ops::RangeInclusive<Duration> =
    SMALLEST_CLOCK_LIMIT..=Duration::from_hours(24);
pub(crate) const SMALLEST_CLOCK_LIMIT: Duration = Duration::from_millis(100);

/// Description of these values, for messages.
const CLOCK_LIMITS_TEXT: &str = "100 to 86400000, or 0 to never set a clock";

/// Default of `clock_limit_ms`: more than what a clock drifts between two corrections by NTP, less than what breaks TLS
/// or builds.
const DEFAULT_CLOCK_LIMIT: Duration = Duration::from_secs(1);

/// Allowed values of `reattach_grace_ms`.
const REATTACH_GRACES: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(MIN_REATTACH_GRACE_MS)..=Duration::from_millis(MAX_REATTACH_GRACE_MS);

/// Default of `shutdown_grace_secs`; well below systemd's default stop timeout of 90 s.
const DEFAULT_SHUTDOWN_GRACE_SECS: u64 = 10;

/// The file with the bearer token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenFile {
    /// A file that must exist.
    Existing(PathBuf),
    /// A file that the daemon creates with a random token if it does not exist.
    Created(PathBuf),
}

impl TokenFile {
    /// Returns the path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Existing(path) | Self::Created(path) => path,
        }
    }
}

/// PEM files of the TLS listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain, starting with the server's certificate.
    pub certificate: PathBuf,
    /// Private key of the server's certificate.
    pub key: PathBuf,
    /// Authorities of client certificates. If set, clients must present a certificate.
    pub client_ca: Option<PathBuf>,
}

/// A complete and validated configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Address of the TCP listener.
    pub listen: Option<SocketAddr>,
    /// Path of the Unix socket listener.
    pub unix_socket: Option<PathBuf>,
    /// Directory of the VMs' sockets.
    pub socket_dir: PathBuf,
    /// Users and groups, other than root and the daemon's own user, that may own or write to `socket_dir`.
    pub socket_owners: Vec<SocketOwner>,
    /// VSOCK ports of the VMs' agents.
    pub agent_ports: AgentPorts,
    /// True if the daemon listens for announcements of agents.
    pub announce: bool,
    /// File with the bearer token that allows callers to operate.
    pub token_file: Option<TokenFile>,
    /// Group whose members are allowed to operate.
    pub operator_group: String,
    /// Callers that may read over loopback TCP.
    pub tcp_read: TcpRead,
    /// Credential that allows callers to operate over TCP.
    pub tcp_operate: TcpOperate,
    /// PEM files for TLS on the TCP listener; `None` for plain TCP.
    pub tls: Option<TlsFiles>,
    /// File for audit entries; without one, they go to the log.
    pub audit_log: Option<PathBuf>,
    /// Policy for operate calls while the audit log cannot be written.
    pub audit: AuditRule,
    /// Database of the declared state; without one, it is kept in memory and ends with the daemon.
    pub state: Option<PathBuf>,
    /// `Host` values accepted from TCP clients, in addition to `localhost`, the loopback addresses and the
    /// address of the listener.
    pub allowed_hosts: Vec<String>,
    /// Origins of other web pages that may use the interface on behalf of their visitors, in the form that
    /// browsers send: `https://dash.example:8443`.
    pub allowed_origins: Vec<String>,
    /// Concurrent calls per VM.
    pub pool_size: usize,
    /// Clock offset above which a guest's clock is set, at most once a minute; `None` to never set it.
    pub clock_limit: Option<Duration>,
    /// Restore steps of the VMs.
    pub restore: RestoreRules,
    /// Intervals at which guests are asked for their figures.
    pub samples: SampleIntervals,
    /// Time for which programs wait for a client to re-attach after its connection broke; `None` for the agent's default.
    pub reattach_grace: Option<Duration>,
    /// Time that requests in progress have to finish once the daemon is told to stop.
    pub shutdown_grace: Duration,
    /// Format of log lines.
    pub log_format: LogFormat,
    /// Log filter in tracing's syntax.
    pub log_level: String,
}

impl Config {
    /// Merges the command line (which includes the environment) with the file, and validates the result.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], naming the setting.
    pub fn load(args: Args) -> Result<Self, ConfigError> {
        let file = match &args.config {
            Some(path) => read(path)?,
            None if Path::new(DEFAULT_FILE).exists() => read(Path::new(DEFAULT_FILE))?,
            None => ConfigFile::default(),
        };
        let state_dirs = std::env::var_os("STATE_DIRECTORY").filter(|dirs| !dirs.is_empty());
        let state_dir = state_dirs.and_then(|dirs| std::env::split_paths(&dirs).next());
        let config = Self::merge(args, file, state_dir.as_deref())?;
        config.check()?;
        Ok(config)
    }

    /// Returns the configuration of a file with this text. Flags and `STATE_DIRECTORY` do not apply.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], naming the setting.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let config =
            Self::merge(Args::parse_from(["minionsd"]), parse(Path::new("-"), text)?, None)?;
        config.check()?;
        Ok(config)
    }

    fn merge(args: Args, file: ConfigFile, state_dir: Option<&Path>) -> Result<Self, ConfigError> {
        let audit_log = args.audit_log.or(file.audit_log);
        let grace = file.shutdown_grace_secs.unwrap_or(DEFAULT_SHUTDOWN_GRACE_SECS);
        let certificate = args.tls_cert.or(file.tls_cert);
        let client_ca = args.tls_client_ca.or(file.tls_client_ca);
        let tls = match (certificate, args.tls_key.or(file.tls_key), client_ca) {
            (Some(certificate), Some(key), client_ca) => {
                Some(TlsFiles { certificate, key, client_ca })
            }
            (None, None, None) => None,
            _ => return Err(ConfigError::HalfTls),
        };
        Ok(Self {
            tls,
            listen: match args.listen.or(file.listen) {
                Some(listen) => listen.into_option(),
                None => DEFAULT_LISTEN.parse().ok(),
            },
            unix_socket: match args.unix_socket.or(file.unix_socket) {
                Some(path) => path.into_option(),
                None => Some(DEFAULT_UNIX_SOCKET.into()),
            },
            socket_dir: args
                .socket_dir
                .or(file.socket_dir)
                .unwrap_or_else(|| DEFAULT_SOCKET_DIR.into()),
            socket_owners: socket_owners(&file.socket_owners)?,
            agent_ports: AgentPorts::parse(args.agent_port, file.agent_port, file.agent_ports)?,
            announce: args.announce.or(file.announce).unwrap_or(true),
            token_file: match args.token_file.or(file.token_file) {
                Some(path) => Some(TokenFile::Existing(path)),
                None => state_dir.map(|dir| TokenFile::Created(dir.join(CREATED_TOKEN))),
            },
            operator_group: file.operator_group.unwrap_or_else(|| DEFAULT_OPERATOR_GROUP.into()),
            tcp_read: args.tcp_read.or(file.tcp_read).unwrap_or(TcpRead::Local),
            tcp_operate: args.tcp_operate.or(file.tcp_operate).unwrap_or(TcpOperate::Token),
            audit: args.audit.or(file.audit).unwrap_or(match audit_log {
                Some(_) => AuditRule::Required,
                None => AuditRule::BestEffort,
            }),
            audit_log,
            state: match args.state.or(file.state) {
                Some(state) => state.into_option(),
                None => state_dir.map(|dir| dir.join(STATE_FILE)),
            },
            allowed_hosts: file.allowed_hosts,
            allowed_origins: file.allowed_origins,
            pool_size: file.pool_size.unwrap_or(DEFAULT_POOL_SIZE),
            clock_limit: match file.clock_limit_ms {
                Some(0) => None,
                Some(ms) => Some(Duration::from_millis(ms)),
                None => Some(DEFAULT_CLOCK_LIMIT),
            },
            restore: RestoreRules::parse(file.restore)?,
            samples: SampleIntervals::parse(file.sample_interval_ms, file.samples)?,
            reattach_grace: file.reattach_grace_ms.map(Duration::from_millis),
            shutdown_grace: Duration::from_secs(grace),
            log_format: args.log_format.or(file.log_format).unwrap_or(LogFormat::Text),
            log_level: args.log_level.or(file.log_level).unwrap_or_else(|| "info".into()),
        })
    }

    fn check(&self) -> Result<(), ConfigError> {
        let is_protected = self.tls.is_some() && self.token_file.is_some();
        let beyond_loopback = self.listen.filter(|address| !address.ip().is_loopback());
        if let Some(address) = beyond_loopback.filter(|_| !is_protected) {
            return Err(ConfigError::NotLoopback(address));
        }
        if self.listen.is_none() && self.unix_socket.is_none() {
            return Err(ConfigError::NoListener);
        }
        let len = self.unix_socket.as_ref().map_or(0, |path| path.as_os_str().len());
        if len > MAX_PATH_LEN {
            return Err(ConfigError::SocketPathTooLong { len });
        }
        if self.tcp_read == TcpRead::Token && self.listen.is_some() && self.token_file.is_none() {
            return Err(ConfigError::NoTokenToReadWith);
        }
        if self.audit == AuditRule::Required && self.audit_log.is_none() {
            return Err(ConfigError::NoRequiredAuditFile);
        }
        if let Some((index, origin)) =
            self.allowed_origins.iter().enumerate().find(|(_, origin)| !is_origin(origin))
        {
            return Err(ConfigError::NotAnOrigin { index, origin: origin.clone() });
        }
        if !(2..=MAX_POOL_SIZE).contains(&self.pool_size) {
            let value = self.pool_size.try_into().unwrap_or(u64::MAX);
            return Err(ConfigError::OutOfRange { field: "pool_size", value, allowed: "2 to 512" });
        }
        if let Some(limit) = self.clock_limit
            && !CLOCK_LIMITS.contains(&limit)
        {
            let value = limit.as_millis().try_into().unwrap_or(u64::MAX);
            return Err(ConfigError::OutOfRange {
                field: "clock_limit_ms",
                value,
                allowed: CLOCK_LIMITS_TEXT,
            });
        }
        if let Some(grace) = self.reattach_grace
            && !REATTACH_GRACES.contains(&grace)
        {
            let value = grace.as_millis().try_into().unwrap_or(u64::MAX);
            return Err(ConfigError::OutOfRange {
                field: "reattach_grace_ms",
                value,
                allowed: "1000 to 3600000",
            });
        }
        Ok(())
    }
}

fn socket_owners(owners: &[String]) -> Result<Vec<SocketOwner>, ConfigError> {
    let parse = |(index, owner): (usize, &String)| {
        SocketOwner::parse(owner)
            .ok_or_else(|| ConfigError::UnknownOwner { index, owner: owner.clone() })
    };
    owners.iter().enumerate().map(parse).collect()
}

/// Reports whether the text is an origin as the Fetch standard serializes it: scheme, host and port only. `null`
/// is not accepted: every sandboxed page sends it, so it identifies no page.
fn is_origin(text: &str) -> bool {
    let authority = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let uri = text.parse::<http::Uri>().ok();
    let own = uri.as_ref().and_then(|uri| uri.authority());
    authority.is_some_and(|authority| {
        own.is_some_and(|own| own.as_str() == authority)
            && !authority.contains('@')
            && !authority.bytes().any(|byte| byte.is_ascii_uppercase() || byte == b'*')
    })
}

#[cfg(test)]
mod tests;
