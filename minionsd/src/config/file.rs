//! The configuration file.

use super::agent_ports::PortEntry;
use super::choices::{AuditRule, LogFormat, OptionalSetting, TcpOperate, TcpRead};
use super::error::ConfigError;
use super::restore_rules::RestoreEntry;
use super::sample_intervals::SampleEntry;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Content of the configuration file. All settings are optional.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConfigFile {
    pub(super) listen: Option<OptionalSetting<SocketAddr>>,
    pub(super) unix_socket: Option<OptionalSetting<PathBuf>>,
    pub(super) socket_dir: Option<PathBuf>,
    #[serde(default)]
    pub(super) socket_owners: Vec<String>,
    pub(super) agent_port: Option<i64>,
    #[serde(default)]
    pub(super) agent_ports: Vec<PortEntry>,
    pub(super) announce: Option<bool>,
    pub(super) token_file: Option<PathBuf>,
    pub(super) operator_group: Option<String>,
    pub(super) tcp_read: Option<TcpRead>,
    pub(super) tcp_operate: Option<TcpOperate>,
    pub(super) audit_log: Option<PathBuf>,
    pub(super) audit: Option<AuditRule>,
    pub(super) state: Option<OptionalSetting<PathBuf>>,
    pub(super) tls_cert: Option<PathBuf>,
    pub(super) tls_key: Option<PathBuf>,
    pub(super) tls_client_ca: Option<PathBuf>,
    #[serde(default)]
    pub(super) allowed_hosts: Vec<String>,
    #[serde(default)]
    pub(super) allowed_origins: Vec<String>,
    pub(super) pool_size: Option<usize>,
    pub(super) clock_limit_ms: Option<u64>,
    #[serde(default)]
    pub(super) restore: Vec<RestoreEntry>,
    pub(super) sample_interval_ms: Option<u64>,
    #[serde(default)]
    pub(super) samples: Vec<SampleEntry>,
    pub(super) reattach_grace_ms: Option<u64>,
    pub(super) shutdown_grace_secs: Option<u64>,
    pub(super) log_format: Option<LogFormat>,
    pub(super) log_level: Option<String>,
}

pub(super) fn read(path: &Path) -> Result<ConfigFile, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    parse(path, &text)
}

pub(super) fn parse(path: &Path, text: &str) -> Result<ConfigFile, ConfigError> {
    toml::from_str(text).map_err(|source| ConfigError::Malformed {
        path: path.to_owned(),
        source: Box::new(source),
    })
}
