//! The command line.

use super::choices::{AuditRule, LogFormat, OptionalSetting, TcpOperate, TcpRead};
use clap::{Parser, Subcommand};
use minions_proto::AgentPort;
use std::net::SocketAddr;
use std::path::PathBuf;

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

    /// Listen for announcements of agents on `<vm>.vsock_1025` next to each VM's socket: `true`, or `false` to find
    /// agents by probes alone [default: true]
    #[arg(long, value_name = "BOOL", env = "MINIONSD_ANNOUNCE")]
    pub announce: Option<bool>,

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

    /// Database of declarations, pools and leases, or `none` to keep them in memory until the daemon ends
    /// [default: `minionsd.db` in systemd's state directory; otherwise none]
    #[arg(long, value_name = "PATH", env = "MINIONSD_STATE")]
    pub state: Option<OptionalSetting<PathBuf>>,

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
