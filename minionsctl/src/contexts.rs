//! Contexts: named addresses of minionsd with their credentials, in `$XDG_CONFIG_HOME/minions/contexts.toml`. Imports
//! nothing of this crate: [`Failure`](crate::failure::Failure) contains its error.

use rustix::fs::Mode;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Name that stands for no context.
pub(crate) const NO_CONTEXT: &str = "default";

/// Maximum length of a name, in bytes.
const MAX_NAME: usize = 63;

/// Maximum number of contexts.
const MAX_CONTEXTS: usize = 1024;

/// Name of a context.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct ContextName(String);

/// Text that is no name of a context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be 1 to {MAX_NAME} characters of A-Z a-z 0-9 . _ -, starting with a letter or a digit"
)]
pub(crate) struct InvalidContextName;

/// Address of a daemon, and the files with the credentials for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ContextSettings {
    /// Address, as `--host`.
    pub(crate) host: String,
    /// File with the bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<PathBuf>,
    /// CA bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Client certificate chain and key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cert_file: Option<PathBuf>,
}

/// Contexts of a user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ContextFile {
    /// Context of commands that select none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<ContextName>,
    /// The contexts.
    #[serde(default)]
    pub(crate) contexts: BTreeMap<ContextName, ContextSettings>,
}

/// Failure of a command for contexts, or of the selection of one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContextError {
    /// The context does not exist.
    #[error("there is no context {name:?}: {}", if .known.is_empty() { "`minionsctl context add` creates one".into() } else { format!("must be one of {known}") })]
    Unknown {
        /// Name as given.
        name: String,
        /// Names of the existing contexts.
        known: String,
    },
    /// The name is taken.
    #[error("the context {0:?} exists: remove it first, or use --replace")]
    Exists(String),
    /// The name stands for no context.
    #[error("`{NO_CONTEXT}` stands for the settings without a context: choose another name")]
    Reserved,
    /// Too many contexts.
    #[error("there are {MAX_CONTEXTS} contexts already: remove one first")]
    TooMany,
    /// The name is malformed.
    #[error("invalid name of a context {name:?}")]
    Name {
        /// Name as given.
        name: String,
        /// Accepted names.
        source: InvalidContextName,
    },
    /// The directory of the user's settings is unknown.
    #[error("no directory for contexts: set HOME or XDG_CONFIG_HOME to an absolute path")]
    NoDirectory,
    /// The file could not be written.
    #[error("cannot write {}", .path.display())]
    Write {
        /// Path of the file.
        path: PathBuf,
        /// Reason.
        source: io::Error,
    },
}

impl ContextName {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContextName {
    type Err = InvalidContextName;

    fn from_str(text: &str) -> Result<Self, InvalidContextName> {
        Self::try_from(text.to_owned())
    }
}

impl TryFrom<String> for ContextName {
    type Error = InvalidContextName;

    fn try_from(text: String) -> Result<Self, InvalidContextName> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if begins && text.len() <= MAX_NAME && text.bytes().all(is_plain) {
            Ok(Self(text))
        } else {
            Err(InvalidContextName)
        }
    }
}

impl From<ContextName> for String {
    fn from(name: ContextName) -> Self {
        name.0
    }
}

impl ContextFile {
    /// Parses the text of the file.
    pub(crate) fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// Replaces the file, readable by its owner only. A reader sees the old or the new contexts.
    pub(crate) fn write(&self, path: &Path) -> Result<(), ContextError> {
        let failed = |source| ContextError::Write { path: path.to_owned(), source };
        let text = toml::to_string(self).map_err(|error| failed(io::Error::other(error)))?;
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(failed)?;
        }
        let new = path.with_extension(format!("toml.{}", std::process::id()));
        let written = write_new(&new, &text).and_then(|()| fs::rename(&new, path));
        written.map_err(|source| {
            // A file that was not created cannot be removed.
            let _ = fs::remove_file(&new);
            failed(source)
        })
    }

    /// Returns the context with this name; `None` for [`NO_CONTEXT`].
    pub(crate) fn select(&self, name: &str) -> Result<Option<&ContextSettings>, ContextError> {
        if name == NO_CONTEXT {
            return Ok(None);
        }
        let found = self.contexts.iter().find(|(known, _)| known.as_str() == name);
        found.map(|(_, settings)| Some(settings)).ok_or_else(|| self.unknown(name))
    }

    /// Adds a context, or replaces it if `replace` is set.
    pub(crate) fn add(
        &mut self,
        name: ContextName,
        settings: ContextSettings,
        replace: bool,
    ) -> Result<(), ContextError> {
        if name.as_str() == NO_CONTEXT {
            return Err(ContextError::Reserved);
        }
        let exists = self.contexts.contains_key(&name);
        if exists && !replace {
            return Err(ContextError::Exists(name.0));
        }
        if !exists && self.contexts.len() >= MAX_CONTEXTS {
            return Err(ContextError::TooMany);
        }
        self.contexts.insert(name, settings);
        Ok(())
    }

    /// Makes a context the current one; [`NO_CONTEXT`] makes none the current one.
    pub(crate) fn make_current(&mut self, name: &str) -> Result<(), ContextError> {
        self.current = match self.select(name)? {
            None => None,
            Some(_) => Some(parse(name)?),
        };
        Ok(())
    }

    /// Removes a context. If it is the current one, none is the current one then.
    pub(crate) fn remove(&mut self, name: &str) -> Result<(), ContextError> {
        let known = parse(name)?;
        if self.contexts.remove(&known).is_none() {
            return Err(self.unknown(name));
        }
        if self.current.as_ref() == Some(&known) {
            self.current = None;
        }
        Ok(())
    }

    fn unknown(&self, name: &str) -> ContextError {
        let known: Vec<_> = self.contexts.keys().map(ContextName::as_str).collect();
        ContextError::Unknown { name: name.to_owned(), known: known.join(", ") }
    }
}

/// Parses a name that the user gave.
pub(crate) fn parse(name: &str) -> Result<ContextName, ContextError> {
    name.parse().map_err(|source| ContextError::Name { name: name.to_owned(), source })
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mode = (Mode::RUSR | Mode::WUSR).bits();
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ContextName {
        text.parse().unwrap()
    }

    fn settings(host: &str) -> ContextSettings {
        ContextSettings { host: host.into(), ..ContextSettings::default() }
    }

    #[test]
    fn a_name_has_plain_characters() {
        for text in ["prod", "eu-1.x_y", "0"] {
            assert!(text.parse::<ContextName>().is_ok(), "{text}");
        }
        for text in ["", "-x", ".x", "a b", "a/b", "ä", &"a".repeat(64)] {
            assert!(text.parse::<ContextName>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_context_is_added_once_selected_and_removed() {
        let mut file = ContextFile::default();
        file.add(name("a"), settings("http://a"), false).unwrap();
        let again = file.add(name("a"), settings("http://b"), false);
        assert!(matches!(again, Err(ContextError::Exists(_))));
        file.add(name("a"), settings("http://b"), true).unwrap();
        assert_eq!(file.select("a").unwrap().unwrap().host, "http://b");
        assert_eq!(file.select("default").unwrap(), None);
        file.make_current("a").unwrap();
        let unknown = file.make_current("b").unwrap_err().to_string();
        assert_eq!(unknown, "there is no context \"b\": must be one of a");
        assert_eq!(file.current, Some(name("a")));
        file.remove("a").unwrap();
        assert_eq!(file, ContextFile::default());
        assert!(file.remove("a").is_err());
        let reserved = file.add(name("default"), settings("http://a"), false);
        assert!(matches!(reserved, Err(ContextError::Reserved)));
    }

    #[test]
    fn the_number_of_contexts_is_limited() {
        let mut file = ContextFile::default();
        for number in 0..MAX_CONTEXTS {
            file.add(name(&format!("c{number}")), settings("http://a"), false).unwrap();
        }
        let more = file.add(name("more"), settings("http://a"), false);
        assert!(matches!(more, Err(ContextError::TooMany)));
        file.add(name("c0"), settings("http://b"), true).unwrap();
    }
}
