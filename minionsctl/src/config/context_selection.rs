//! The context that applies to a command: `--context`, the variable, or the current one.

use super::settings_layer::{SettingsLayer, contexts_file, is_of_another_user, variable};
use crate::bounded_file;
use crate::cli::Cli;
use crate::contexts::{ContextFile, ContextSettings};
use crate::failure::Failure;
use crate::output::Printer;
use std::io;
use std::path::Path;

/// Variable with the name of the context.
const VARIABLE: &str = "MINIONS_CONTEXT";

/// Context of a command.
#[derive(Debug)]
pub(super) struct SelectedContext {
    pub(super) settings: ContextSettings,
}

impl SelectedContext {
    /// Returns the context that applies. An address in `--host`, `--socket` or the environment excludes one that is not
    /// selected with `--context`.
    pub(super) fn find(cli: &Cli, host_in_environment: bool) -> Result<Option<Self>, Failure> {
        let by_flag = cli.context.is_some();
        // Also if the options are on both sides of the command, where the parser sees no conflict.
        if by_flag && (cli.host.is_some() || cli.socket.is_some()) {
            return Err(Failure::Usage("--context has an address: leave --host and --socket out"));
        }
        let other_address = cli.host.is_some() || cli.socket.is_some() || host_in_environment;
        if other_address && !by_flag {
            return Ok(None);
        }
        let name = match &cli.context {
            Some(name) => Some(name.clone()),
            None => variable(VARIABLE)?,
        };
        let path = match (contexts_file(), &name) {
            (Ok(path), _) => path,
            (Err(_), None) => return Ok(None),
            (Err(error), Some(_)) => return Err(error.into()),
        };
        let file = match read_contexts(&path) {
            Err(Failure::File { source, .. })
                if name.is_none() && is_of_another_user(&path, &source) =>
            {
                if !cli.output.is_structured() {
                    Printer::remark_line(&format!("{} is ignored: {source}", path.display()));
                }
                return Ok(None);
            }
            file => file?,
        };
        let name = name.or_else(|| file.current.as_ref().map(|name| name.as_str().to_owned()));
        let settings = name.map(|name| file.select(&name).map(Option::<&_>::cloned)).transpose()?;
        Ok(settings.flatten().map(|settings| Self { settings }))
    }
}

/// Reads the user's contexts. A missing file has none.
pub(crate) fn read_contexts(path: &Path) -> Result<ContextFile, Failure> {
    match bounded_file::read_text(path) {
        Ok(text) => ContextFile::parse(&text)
            .map_err(|source| Failure::Config { path: path.to_owned(), source: Box::new(source) }),
        Err(Failure::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(ContextFile::default())
        }
        Err(failure) => Err(failure),
    }
}

impl From<ContextSettings> for SettingsLayer {
    fn from(context: ContextSettings) -> Self {
        let ContextSettings { host, token_file, ca_file, cert_file } = context;
        Self { host: Some(host), token_file, ca_file, cert_file }
    }
}
