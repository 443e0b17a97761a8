//! Address, token and certificates. Flags override the environment, then come the context, the user's file and the
//! host's. [`context_selection`]: the context that applies. [`settings_layer`]: the places of settings.

mod context_selection;
mod settings_layer;

use crate::agent_address::AgentAddress;
use crate::bounded_file;
use crate::cli::Cli;
use crate::failure::Failure;
use crate::host_address::HostAddress;
use crate::output::Printer;
use context_selection::SelectedContext;
pub(crate) use context_selection::read_contexts;
use minions_proto::AgentPort;
use rustix::fs::{Access, access};
use serde::Deserialize;
pub(crate) use settings_layer::contexts_file;
use settings_layer::{SettingsLayer, is_of_another_user, path_variable, user_directory, variable};
use std::io;
use std::path::{Path, PathBuf};

const SYSTEM_FILE: &str = "/etc/minions/config.toml";
const DEFAULT_UNIX_SOCKET: &str = "/run/minions/minionsd.sock";
const PORT_VARIABLE: &str = "MINIONS_AGENT_PORT";

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
    pub(crate) host: HostAddress,
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
        let files = config_files(cli)?;
        let agent = agent(cli, &files)?;
        let layers = layers(cli, files)?;
        let path = |setting: fn(&SettingsLayer) -> &Option<PathBuf>| {
            layers.iter().find_map(|layer| setting(layer).clone())
        };
        let token = path(|layer| &layer.token_file).map(|path| token(&path)).transpose()?;
        let host = match layers.iter().find_map(|layer| layer.host.as_ref()) {
            Some(host) => host.parse()?,
            // With -o json, standard error has only JSON.
            None => default_host(agent.is_none() && token.is_none() && !cli.output.is_structured()),
        };
        Ok(Self {
            host,
            token,
            ca_file: path(|layer| &layer.ca_file),
            cert_file: path(|layer| &layer.cert_file),
            agent,
            incarnation: cli.incarnation.clone(),
        })
    }
}

/// Returns the settings of all places, the ones with the highest precedence first. Credentials in the files are for the
/// host in the files, so a context replaces both.
fn layers(cli: &Cli, files: Vec<ConfigFile>) -> Result<Vec<SettingsLayer>, Failure> {
    let flags = SettingsLayer {
        host: cli.host.clone(),
        token_file: cli.token_file.clone(),
        ca_file: cli.ca_file.clone(),
        cert_file: cli.cert_file.clone(),
    };
    let environment = SettingsLayer {
        host: variable("MINIONS_HOST")?,
        token_file: path_variable("MINIONS_TOKEN_FILE"),
        ca_file: path_variable("MINIONS_CA_FILE"),
        cert_file: path_variable("MINIONS_CERT_FILE"),
    };
    Ok(match SelectedContext::find(cli, environment.host.is_some())? {
        // The environment's credentials are not for the context's host either.
        Some(SelectedContext { settings }) => vec![flags, settings.into()],
        None => {
            let given = flags.host.as_ref().or(environment.host.as_ref());
            let given = given.map(|host| host.parse::<HostAddress>()).transpose()?;
            let files =
                files.into_iter().map(|file| file.for_host(given.as_ref())).collect::<Vec<_>>();
            [flags, environment].into_iter().chain(files).collect()
        }
    })
}

impl ConfigFile {
    /// Returns the settings. If another place gives the host, without credentials for another one.
    fn for_host(self, given: Option<&HostAddress>) -> SettingsLayer {
        let is_for = |given: &HostAddress| match &self.host {
            Some(host) => host.parse::<HostAddress>().is_ok_and(|own| own == *given),
            None => given.is_of_this_machine(),
        };
        let keeps = given.is_none_or(is_for);
        let layer = SettingsLayer::from(self);
        if keeps { layer } else { SettingsLayer { token_file: None, cert_file: None, ..layer } }
    }
}

impl From<ConfigFile> for SettingsLayer {
    fn from(file: ConfigFile) -> Self {
        let ConfigFile { host, token_file, ca_file, cert_file, agent_port: _ } = file;
        Self { host, token_file, ca_file, cert_file }
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
    let in_files = || files.iter().find_map(|file| file.agent_port);
    let invalid = |setting, value, source| Failure::Port { setting, value, source };
    let port = if let Some(port) = cli.port {
        port
    } else if let Some(text) = variable(PORT_VARIABLE)? {
        text.parse().map_err(|source| invalid(PORT_VARIABLE, text, source))?
    } else if let Some(number) = in_files() {
        AgentPort::try_from(number)
            .map_err(|source| invalid("agent_port", number.to_string(), source))?
    } else {
        AgentPort::DEFAULT
    };
    Ok(Some(AgentAddress { socket, port }))
}

/// Returns the Unix socket if this user may connect to it, otherwise loopback TCP, over which every user reads. `remark`
/// reports a socket that is not used because of its permissions.
fn default_host(remark: bool) -> HostAddress {
    if access(DEFAULT_UNIX_SOCKET, Access::WRITE_OK).is_ok() {
        return HostAddress::unix(DEFAULT_UNIX_SOCKET);
    }
    let loopback = HostAddress::loopback();
    if remark && access(DEFAULT_UNIX_SOCKET, Access::EXISTS).is_ok() {
        Printer::remark_line(&format!(
            "no permission for {DEFAULT_UNIX_SOCKET} (root and the group minions have it): using {loopback}, which \
             only reads"
        ));
    }
    loopback
}

/// Reads the user's file and the host's. A file of the user that this process must not read, as after `su` without `-`,
/// is reported and skipped.
fn config_files(cli: &Cli) -> Result<Vec<ConfigFile>, Failure> {
    let mut files = Vec::new();
    if let Some(path) = user_directory().map(|directory| directory.join("config.toml")) {
        match read(&path) {
            Err(Failure::File { source, .. }) if is_of_another_user(&path, &source) => {
                if !cli.output.is_structured() {
                    Printer::remark_line(&format!("{} is ignored: {source}", path.display()));
                }
            }
            file => files.push(file?),
        }
    }
    files.push(read(Path::new(SYSTEM_FILE))?);
    Ok(files)
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
