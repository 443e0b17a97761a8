//! Address, token and certificates. Flags override the environment, then come the user's file and the host's.

use crate::agent_address::AgentAddress;
use crate::bounded_file;
use crate::cli::Cli;
use crate::failure::Failure;
use minions_proto::AgentPort;
use rustix::fs::{Access, access};
use serde::Deserialize;
use std::env;
use std::io;
use std::path::{Path, PathBuf};

const SYSTEM_FILE: &str = "/etc/minions/config.toml";
const DEFAULT_UNIX_SOCKET: &str = "/run/minions/minionsd.sock";
const PORT_VARIABLE: &str = "MINIONS_AGENT_PORT";
const DEFAULT_HOST: &str = "http://127.0.0.1:7070";

/// Configuration file. Every key is optional.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    host: Option<String>,
    token_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    agent_port: Option<i64>,
}

/// Address of minionsd, and credentials for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientConfig {
    /// `http://…`, `https://…` or `unix://…`.
    pub(crate) host: String,
    /// The bearer token.
    pub(crate) token: Option<String>,
    /// CA bundle for `https://`, instead of the system store.
    pub(crate) ca_file: Option<PathBuf>,
    /// Client certificate chain and key, in one PEM file.
    pub(crate) cert_file: Option<PathBuf>,
    /// Agent that is called instead of minionsd.
    pub(crate) agent: Option<AgentAddress>,
    /// Incarnation of the VM that calls must reach.
    pub(crate) incarnation: Option<String>,
}

impl ClientConfig {
    pub(crate) fn load(cli: &Cli) -> Result<Self, Failure> {
        let files: Vec<ConfigFile> = [user_file(), Some(SYSTEM_FILE.into())]
            .into_iter()
            .flatten()
            .map(|path| read(&path))
            .collect::<Result<_, _>>()?;
        let host = cli
            .host
            .clone()
            .or_else(|| env::var("MINIONS_HOST").ok())
            .or_else(|| files.iter().find_map(|file| file.host.clone()))
            .unwrap_or_else(default_host);
        let path =
            |flag: &Option<PathBuf>, variable, in_file: fn(&ConfigFile) -> &Option<PathBuf>| {
                flag.clone()
                    .or_else(|| env::var_os(variable).map(PathBuf::from))
                    .or_else(|| files.iter().find_map(|file| in_file(file).clone()))
            };
        let token_file = path(&cli.token_file, "MINIONS_TOKEN_FILE", |file| &file.token_file);
        Ok(Self {
            host,
            token: token_file.map(|path| token(&path)).transpose()?,
            ca_file: path(&cli.ca_file, "MINIONS_CA_FILE", |file| &file.ca_file),
            cert_file: path(&cli.cert_file, "MINIONS_CERT_FILE", |file| &file.cert_file),
            agent: agent(cli, &files)?,
            incarnation: cli.incarnation.clone(),
        })
    }
}

/// Returns the agent of `--socket`.
fn agent(cli: &Cli, files: &[ConfigFile]) -> Result<Option<AgentAddress>, Failure> {
    let Some(socket) = cli.socket.clone() else {
        return match cli.port {
            None => Ok(None),
            Some(_) => Err(Failure::Usage(
                "--port requires --socket; through minionsd, its setting `agent_port` applies",
            )),
        };
    };
    let variable = env::var(PORT_VARIABLE).ok().filter(|text| !text.is_empty());
    let in_files = || files.iter().find_map(|file| file.agent_port);
    let invalid = |setting, value, source| Failure::Port { setting, value, source };
    let port = if let Some(port) = cli.port {
        port
    } else if let Some(text) = variable {
        text.parse().map_err(|source| invalid(PORT_VARIABLE, text, source))?
    } else if let Some(number) = in_files() {
        AgentPort::try_from(number)
            .map_err(|source| invalid("agent_port", number.to_string(), source))?
    } else {
        AgentPort::DEFAULT
    };
    Ok(Some(AgentAddress { socket, port }))
}

/// Returns the Unix socket if this user may connect to it, otherwise loopback TCP, over which every user reads.
fn default_host() -> String {
    if access(DEFAULT_UNIX_SOCKET, Access::WRITE_OK).is_ok() {
        format!("unix://{DEFAULT_UNIX_SOCKET}")
    } else {
        DEFAULT_HOST.into()
    }
}

/// Returns the path of the user's file, below `$XDG_CONFIG_HOME` or `~/.config` (XDG Base Directory).
fn user_file() -> Option<PathBuf> {
    let base = env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".config")))?;
    Some(base.join("minions/config.toml"))
}

fn read(path: &Path) -> Result<ConfigFile, Failure> {
    match bounded_file::read_text(path) {
        Ok(text) => toml::from_str(&text)
            .map_err(|source| Failure::Config { path: path.to_owned(), source: Box::new(source) }),
        Err(Failure::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(ConfigFile::default())
        }
        Err(failure) => Err(failure),
    }
}

fn token(path: &Path) -> Result<String, Failure> {
    bounded_file::read_text(path).map(|text| text.trim().to_owned())
}
