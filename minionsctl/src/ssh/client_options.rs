//! Options with which an SSH client uses the proxy, for a configuration file or the command line of ssh.

use super::host_key::{HostIdentity, KEY_ALIAS};
use crate::cli::HOST_SUFFIX;
use crate::ssh_error::SshError;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Options of an SSH client.
#[derive(Debug)]
pub(crate) struct ClientOptions {
    options: Vec<(&'static str, String)>,
}

impl ClientOptions {
    /// Creates the options. `proxy` is the command that serves SSH: a program and its arguments. If `appends_host` is
    /// set, ssh appends the host name as the user typed it.
    pub(crate) fn new(
        identity: &HostIdentity,
        proxy: &[String],
        appends_host: bool,
    ) -> Result<Self, SshError> {
        let host = if appends_host { " %n" } else { "" };
        let words: Vec<String> = proxy.iter().map(|word| shell_word(word)).collect();
        let value = |text: &str| text.to_owned();
        Ok(Self {
            options: vec![
                ("ProxyCommand", words.join(" ") + host),
                ("UserKnownHostsFile", quoted(&identity.known_hosts)?),
                ("GlobalKnownHostsFile", value("/dev/null")),
                ("HostKeyAlias", value(KEY_ALIAS)),
                ("HostKeyAlgorithms", value("ssh-ed25519")),
                ("StrictHostKeyChecking", value("yes")),
                ("CheckHostIP", value("no")),
                ("UpdateHostKeys", value("no")),
            ],
        })
    }

    /// Returns the block of a configuration file.
    pub(crate) fn block(&self) -> String {
        let mut block = format!("Host *{HOST_SUFFIX}\n    User root\n");
        for (name, value) in &self.options {
            // Writing to a string cannot fail.
            let _ = writeln!(block, "    {name} {value}");
        }
        block
    }

    /// Returns the options as arguments of ssh.
    pub(crate) fn arguments(&self) -> impl Iterator<Item = String> {
        self.options.iter().flat_map(|(name, value)| ["-o".to_owned(), format!("{name}={value}")])
    }
}

/// Quotes a word for the shell that runs a `ProxyCommand`, and escapes `%`, which begins a token of ssh.
fn shell_word(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''").replace('%', "%%"))
}

/// Quotes a path as a value of ssh_config(5), and escapes `%`, which begins a token.
fn quoted(path: &Path) -> Result<String, SshError> {
    let unsupported = || SshError::Path(PathBuf::from(path));
    let text = path.to_str().ok_or_else(unsupported)?;
    // ssh expands `${…}` in this value, without a way to escape it.
    if text.contains(['"', '\\', '\n', '\r']) || text.contains("${") {
        return Err(unsupported());
    }
    Ok(format!("\"{}\"", text.replace('%', "%%")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_the_shell_and_for_ssh() {
        assert_eq!(shell_word("a b"), "'a b'");
        assert_eq!(shell_word("it's 5%"), r"'it'\''s 5%%'");
    }

    #[test]
    fn a_path_that_ssh_cannot_read_is_refused() {
        assert_eq!(quoted(Path::new("/a b/5%")).unwrap(), "\"/a b/5%%\"");
        for path in ["/a\"b", "/a\\b", "/a\nb", "/${HOME}"] {
            assert!(quoted(Path::new(path)).unwrap_err().to_string().contains("without quotes"));
        }
    }
}
