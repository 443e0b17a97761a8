//! `minionsctl context …`: named addresses of minionsd with their credentials.

use super::context::Context;
use crate::cli::{Cli, ContextCommand};
use crate::config::{contexts_file, read_contexts};
use crate::contexts::{ContextName, ContextSettings, NO_CONTEXT, parse};
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::host_address::HostAddress;
use crate::output::Rows;
use serde::Serialize;
use std::path::{Path, PathBuf, absolute};

/// A context in a list.
#[derive(Debug, Serialize)]
struct ListedContext<'a> {
    name: &'a ContextName,
    current: bool,
    #[serde(flatten)]
    settings: &'a ContextSettings,
}

/// Settings of a new context, which are global options.
#[derive(Debug)]
pub(super) struct NewContext {
    host: Option<String>,
    token_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
}

impl NewContext {
    pub(super) fn of(cli: &Cli) -> Self {
        let Cli { host, token_file, ca_file, cert_file, .. } = cli;
        Self {
            host: host.clone(),
            token_file: token_file.clone(),
            ca_file: ca_file.clone(),
            cert_file: cert_file.clone(),
        }
    }

    /// Returns the settings with absolute paths: other commands may run in other directories.
    fn settings(self) -> Result<ContextSettings, Failure> {
        let Some(host) = self.host else {
            return Err(Failure::Usage("a context needs an address: give it with --host"));
        };
        let file = |path: Option<PathBuf>| {
            path.map(|path| absolute(&path).map_err(|source| Failure::File { path, source }))
                .transpose()
        };
        Ok(ContextSettings {
            host: absolute_host(host.parse()?)?,
            token_file: file(self.token_file)?,
            ca_file: file(self.ca_file)?,
            cert_file: file(self.cert_file)?,
        })
    }
}

/// Makes the path of a Unix socket absolute.
pub(super) fn absolute_host(host: HostAddress) -> Result<String, Failure> {
    let Some(path) = host.as_str().strip_prefix("unix://") else { return Ok(host.to_string()) };
    let path =
        absolute(Path::new(path)).map_err(|source| Failure::File { path: path.into(), source })?;
    Ok(format!("unix://{}", path.display()))
}

pub(super) fn run(
    context: &Context<'_>,
    command: &ContextCommand,
    new: NewContext,
) -> Result<ExitStatus, Failure> {
    let path = contexts_file()?;
    let mut file = read_contexts(&path)?;
    match command {
        ContextCommand::Add { name, replace } => {
            file.add(parse(name)?, new.settings()?, *replace)?;
            file.write(&path)?;
        }
        ContextCommand::Use { name } => {
            file.make_current(name)?;
            file.write(&path)?;
        }
        ContextCommand::Rm { name } => {
            file.remove(name)?;
            file.write(&path)?;
        }
        ContextCommand::Current => {
            let current = file.current.as_ref().map_or(NO_CONTEXT, ContextName::as_str);
            context.printer.result(&serde_json::json!({ "current": current }), |_| {
                Rows::new().row([current.to_owned()])
            })?;
        }
        ContextCommand::Ls => {
            let contexts = file.contexts.iter().map(|(name, settings)| {
                let current = file.current.as_ref() == Some(name);
                ListedContext { name, current, settings }
            });
            list(context, &contexts.collect::<Vec<_>>())?;
        }
    }
    Ok(ExitStatus::Success)
}

fn list(context: &Context<'_>, contexts: &[ListedContext<'_>]) -> Result<(), Failure> {
    if context.printer.is_names() {
        return context.printer.names(contexts.iter().map(|listed| listed.name.as_str()));
    }
    context.printer.result(&serde_json::json!({ "contexts": contexts }), |_| {
        let rows = Rows::with_header(&["CURRENT", "NAME", "HOST", "TOKEN FILE", "CA FILE"]);
        let file = |path: &Option<PathBuf>| {
            path.as_ref().map_or_else(|| "-".into(), |path| path.display().to_string())
        };
        contexts.iter().fold(rows, |rows, listed| {
            rows.row([
                if listed.current { "*" } else { "" }.to_owned(),
                listed.name.as_str().to_owned(),
                listed.settings.host.clone(),
                file(&listed.settings.token_file),
                file(&listed.settings.ca_file),
            ])
        })
    })
}
