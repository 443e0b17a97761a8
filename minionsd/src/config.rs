//! The daemon's configuration. A flag overrides the environment, which overrides the file, which overrides the
//! default.

mod agent_ports;
mod error;
mod socket_owner;

pub use agent_ports::{AgentPorts, PortRule};
pub use error::ConfigError;
pub use minions_api::vm_pattern::{InvalidPattern, VmPattern};
pub use socket_owner::SocketOwner;

use clap::{Parser, Subcommand, ValueEnum};
use minions_proto::AgentPort;
use minions_proto::hybrid::MAX_PATH_LEN;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// Configuration file that is read if it exists and `--config` is not given.
const DEFAULT_FILE: &str = "/etc/minions/minionsd.toml";

const DEFAULT_LISTEN: &str = "127.0.0.1:7070";
const DEFAULT_UNIX_SOCKET: &str = "/run/minions/minionsd.sock";
const DEFAULT_SOCKET_DIR: &str = "/run/minions";
const DEFAULT_OPERATOR_GROUP: &str = "minions";
/// Name of the token file in systemd's state directory (`StateDirectory=`).
const CREATED_TOKEN: &str = "token";

const DEFAULT_POOL_SIZE: usize = 8;

/// Upper limit of `pool_size`: a VMM serves 1023 connections per VM, and other tools need some of them.
const MAX_POOL_SIZE: usize = 512;

/// Allowed values of `clock_limit_ms`. A probe measures a clock to a few milliseconds, so a smaller limit would
/// react to noise; a limit above one day has no use.
const CLOCK_LIMITS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_hours(24);

/// Default of `shutdown_grace_secs`; well below systemd's default stop timeout of 90 s.
const DEFAULT_SHUTDOWN_GRACE_SECS: u64 = 10;

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "minionsd", version, about = "Serves the agents of this host's microVMs as REST")]
pub struct Args {
    /// Configuration file [default: /etc/minions/minionsd.toml, if it exists]
    #[arg(long, value_name = "FILE", env = "MINIONS_CONFIG")]
    pub config: Option<PathBuf>,

    /// TCP address to listen on, or `none`; an address other than loopback requires TLS and a token
    /// [default: 127.0.0.1:7070]
    #[arg(long, value_name = "ADDRESS", env = "MINIONS_LISTEN")]
    pub listen: Option<OptionalSetting<SocketAddr>>,

    /// Unix socket to listen on, or `none` [default: /run/minions/minionsd.sock]
    #[arg(long, value_name = "PATH", env = "MINIONS_UNIX_SOCKET")]
    pub unix_socket: Option<OptionalSetting<PathBuf>>,

    /// Directory of the VMs' sockets, each named `<vm>.vsock` [default: /run/minions]
    #[arg(long, value_name = "DIR", env = "MINIONS_SOCKET_DIR")]
    pub socket_dir: Option<PathBuf>,

    /// VSOCK port on which agents listen, for VMs without an entry in `agent_ports` [default: 1024]
    #[arg(long, value_name = "PORT", env = "MINIONS_AGENT_PORT")]
    pub agent_port: Option<AgentPort>,

    /// File with the bearer token that allows callers to operate: mode 0600, or 0640 with the operators' group
    /// [default: `token` in systemd's state directory, created on the first start; otherwise none]
    #[arg(long, value_name = "FILE", env = "MINIONSD_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,

    /// Serve TCP over TLS with this certificate chain (PEM); SIGHUP reloads it
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// Private key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Require TLS clients to present a certificate that one of these authorities issued (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_client_ca: Option<PathBuf>,

    /// Callers on this machine that may read over TCP: `local` (all of them), or `token` (those with the token)
    /// [default: local]
    #[arg(long, value_name = "RULE", value_enum, env = "MINIONSD_TCP_READ")]
    pub tcp_read: Option<TcpRead>,

    /// Credential that allows callers to operate over TCP: `token`, or `uid` to also accept an operator's user id;
    /// use `uid` only on hosts without relays, because it is the user id of the process that connects
    /// [default: token]
    #[arg(long, value_name = "RULE", value_enum, env = "MINIONSD_TCP_OPERATE")]
    pub tcp_operate: Option<TcpOperate>,

    /// Append audit entries to this file, as JSON lines [default: write them to the log]
    #[arg(long, value_name = "FILE", env = "MINIONSD_AUDIT_LOG")]
    pub audit_log: Option<PathBuf>,

    /// Policy for operate calls while the audit log cannot be written: `required` refuses them, `best-effort`
    /// serves them [default: required with --audit-log, otherwise best-effort]
    #[arg(long, value_name = "RULE", value_enum, env = "MINIONSD_AUDIT")]
    pub audit: Option<AuditRule>,

    /// Format of log lines [default: text]
    #[arg(long, value_enum, env = "MINIONS_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,

    /// Log filter in tracing's syntax, for example `info` or `minionsd=debug` [default: info]
    #[arg(long, value_name = "FILTER", env = "MINIONS_LOG")]
    pub log_level: Option<String>,

    /// Command to run instead of the daemon
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// A command to run instead of the daemon.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum Command {
    /// Print the OpenAPI document
    Openapi,
}

/// A setting that `none` turns off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OptionalSetting<T> {
    /// Turned off.
    Off,
    /// Turned on, with this value.
    On(T),
}

impl<T> OptionalSetting<T> {
    fn into_option(self) -> Option<T> {
        match self {
            Self::Off => None,
            Self::On(value) => Some(value),
        }
    }
}

impl<T: FromStr> FromStr for OptionalSetting<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        if text == "none" { Ok(Self::Off) } else { text.parse().map(Self::On) }
    }
}

impl<'de, T: FromStr<Err: std::fmt::Display>> Deserialize<'de> for OptionalSetting<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Human-readable text.
    Text,
    /// JSON, one object per line.
    Json,
}

/// Callers that may read over loopback TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum TcpRead {
    /// Every user of this machine.
    Local,
    /// Callers with the bearer token.
    Token,
}

/// Credential that allows callers to operate over TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum TcpOperate {
    /// The bearer token.
    Token,
    /// The bearer token, or on loopback the uid of the process that connects. A relay that an operator runs then
    /// operates on behalf of all its users.
    Uid,
}

/// Policy for operate calls while the audit log cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum AuditRule {
    /// Refuse the calls with `audit_unavailable`.
    Required,
    /// Serve the calls, and count lost entries.
    BestEffort,
}

/// Content of the configuration file. All settings are optional.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    listen: Option<OptionalSetting<SocketAddr>>,
    unix_socket: Option<OptionalSetting<PathBuf>>,
    socket_dir: Option<PathBuf>,
    #[serde(default)]
    socket_owners: Vec<String>,
    agent_port: Option<i64>,
    #[serde(default)]
    agent_ports: Vec<agent_ports::PortEntry>,
    token_file: Option<PathBuf>,
    operator_group: Option<String>,
    tcp_read: Option<TcpRead>,
    tcp_operate: Option<TcpOperate>,
    audit_log: Option<PathBuf>,
    audit: Option<AuditRule>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    tls_client_ca: Option<PathBuf>,
    #[serde(default)]
    allowed_hosts: Vec<String>,
    #[serde(default)]
    allowed_origins: Vec<String>,
    pool_size: Option<usize>,
    clock_limit_ms: Option<u64>,
    shutdown_grace_secs: Option<u64>,
    log_format: Option<LogFormat>,
    log_level: Option<String>,
}

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
            allowed_hosts: file.allowed_hosts,
            allowed_origins: file.allowed_origins,
            pool_size: file.pool_size.unwrap_or(DEFAULT_POOL_SIZE),
            clock_limit: file.clock_limit_ms.map(Duration::from_millis),
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
                allowed: "100 to 86400000",
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

fn read(path: &Path) -> Result<ConfigFile, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    parse(path, &text)
}

fn parse(path: &Path, text: &str) -> Result<ConfigFile, ConfigError> {
    toml::from_str(text).map_err(|source| ConfigError::Malformed {
        path: path.to_owned(),
        source: Box::new(source),
    })
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
mod tests {
    use super::*;

    fn load(flags: &[&str], file: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("minionsd.toml");
        std::fs::write(&path, file).unwrap();
        let mut line = vec!["minionsd", "--config", path.to_str().unwrap()];
        line.extend(flags);
        Config::load(Args::parse_from(line))
    }

    #[test]
    fn a_flag_beats_the_file_and_the_file_beats_the_default() {
        let file = "listen = '127.0.0.1:1'\nsocket_dir = '/file'\npool_size = 3";
        let config = load(&["--socket-dir", "/flag"], file).unwrap();
        assert_eq!(config.listen, "127.0.0.1:1".parse().ok());
        assert_eq!(config.socket_dir, Path::new("/flag"));
        assert_eq!((config.pool_size, config.log_format), (3, LogFormat::Text));
    }

    #[test]
    fn errors_name_the_invalid_setting() {
        let error = |file: &str| format!("{:#}", anyhow::Error::from(load(&[], file).unwrap_err()));
        assert!(error("lisen = 'x'").contains("lisen"));
        assert!(error("listen = 'localhost'").contains("listen"));
        assert!(error("pool_size = 1").contains("pool_size"));
        assert!(error("listen = '0.0.0.0:7070'").contains("listen"));
        assert!(error("listen = '0.0.0.0:7070'\ntoken_file = '/t'").contains("tls_cert"));
        let tls = "listen = '0.0.0.0:7070'\ntls_cert = '/c'\ntls_key = '/k'";
        assert!(error(tls).contains("token_file"));
        assert!(error("tls_cert = '/c'").contains("tls_key"));
        for origin in
            ["null", "*", "https://dash.example/", "dash.example", "HTTP://a", "https://*.a"]
        {
            let file = format!("allowed_origins = ['https://ok.example', '{origin}']");
            assert!(error(&file).contains("allowed_origins[1]"), "{origin}");
        }
        assert!(error("tcp_read = 'token'").contains("token_file"));
        assert!(error("tcp_operate = 'root'").contains("tcp_operate"));
        assert!(error("audit = 'required'").contains("audit_log"));
        assert!(error("listen = 'none'\nunix_socket = 'none'").contains("unix_socket"));
        let of_length = |len: usize| format!("unix_socket = '/{}'", "x".repeat(len - 1));
        let long = error(&of_length(108));
        assert!(long.contains("`unix_socket` has 108 bytes") && long.contains("107"), "{long}");
        assert!(load(&[], &of_length(107)).is_ok());
        let unknown = error("socket_owners = ['root', 'no such user']");
        assert!(unknown.contains("socket_owners[1]") && unknown.contains("no such user"));
    }

    #[test]
    fn the_first_matching_entry_decides_on_which_port_an_agent_is_expected() {
        let file = "agent_port = 4000\n[[agent_ports]]\nvms = 'web-*'\nport = 2048\n\
                    [[agent_ports]]\nvms = '*-1'\nport = 2049\n";
        let ports = |flags: &[&str], file: &str| {
            let ports = load(flags, file).unwrap().agent_ports;
            ["web-1", "db-1", "db-2"].map(|name| ports.of(&name.parse().unwrap()).get())
        };
        assert_eq!(ports(&[], ""), [1024; 3]);
        assert_eq!(ports(&[], file), [2048, 2049, 4000]);
        assert_eq!(ports(&["--agent-port", "5000"], file), [2048, 2049, 5000]);
    }

    #[test]
    fn an_error_about_a_port_or_pattern_names_the_setting() {
        let error = |file: &str| load(&[], file).unwrap_err().to_string();
        for port in ["-1", "0", "4294967295", "4294967296"] {
            let expected = format!("`agent_port` is {port}: must be a VSOCK port, 1 to 4294967294");
            assert_eq!(error(&format!("agent_port = {port}")), expected);
        }
        let entry = |vms: &str, port: &str| {
            format!(
                "[[agent_ports]]\nvms = 'a'\nport = 1\n[[agent_ports]]\nvms = '{vms}'\nport = {port}"
            )
        };
        assert!(error(&entry("b", "0")).contains("`agent_ports[1].port` is 0"));
        assert!(error(&entry("b c", "2")).contains("`agent_ports[1].vms` is \"b c\""));
        assert!(error(&entry("", "2")).contains("agent_ports[1].vms"));
        let incomplete = load(&[], "[[agent_ports]]\nvms = 'a'").unwrap_err();
        assert!(format!("{:#}", anyhow::Error::from(incomplete)).contains("port"));
        let flag = Args::try_parse_from(["minionsd", "--agent-port", "0"]).unwrap_err().to_string();
        assert!(flag.contains("--agent-port") && flag.contains("1 to 4294967294"), "{flag}");
    }

    #[test]
    fn with_tls_and_a_token_any_listen_address_is_accepted() {
        let file = "listen = '0.0.0.0:7070'\ntls_cert = '/c'\ntls_key = '/k'\ntoken_file = '/t'";
        assert!(load(&[], file).is_ok());
    }

    #[test]
    fn by_default_local_users_read_over_tcp_and_only_the_token_operates() {
        let config = load(&[], "").unwrap();
        assert_eq!((config.tcp_read, config.tcp_operate), (TcpRead::Local, TcpOperate::Token));
        let file = "tcp_read = 'token'\ntcp_operate = 'uid'\ntoken_file = '/t'";
        let config = load(&[], file).unwrap();
        assert_eq!((config.tcp_read, config.tcp_operate), (TcpRead::Token, TcpOperate::Uid));
        let config = load(&["--tcp-read", "local", "--tcp-operate", "token"], file).unwrap();
        assert_eq!((config.tcp_read, config.tcp_operate), (TcpRead::Local, TcpOperate::Token));
    }

    #[test]
    fn audit_defaults_to_required_if_it_has_a_file() {
        assert_eq!(load(&[], "").unwrap().audit, AuditRule::BestEffort);
        assert_eq!(load(&[], "audit_log = '/a'").unwrap().audit, AuditRule::Required);
        let file = "audit_log = '/a'\naudit = 'best-effort'";
        assert_eq!(load(&[], file).unwrap().audit, AuditRule::BestEffort);
        assert_eq!(load(&["--audit", "required"], file).unwrap().audit, AuditRule::Required);
    }

    #[test]
    fn only_the_token_file_in_the_state_directory_is_created() {
        let merged = |file| {
            let args = Args::parse_from(["minionsd"]);
            let file = parse(Path::new("-"), file).unwrap();
            Config::merge(args, file, Some(Path::new("/state"))).unwrap().token_file
        };
        assert_eq!(merged(""), Some(TokenFile::Created("/state/token".into())));
        assert_eq!(merged("token_file = '/t'"), Some(TokenFile::Existing("/t".into())));
        assert_eq!(load(&[], "").unwrap().token_file, None);
    }

    #[test]
    fn none_disables_a_listener() {
        assert_eq!(load(&["--listen", "none"], "").unwrap().listen, None);
    }
}
