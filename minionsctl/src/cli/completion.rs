//! Arguments of `completion`.

use clap::{Args, ValueEnum};

const INSTALLATION: &str = "\
Examples:
  source <(minionsctl completion bash)                        in ~/.bashrc
  source <(minionsctl completion zsh)                         in ~/.zshrc, after compinit
  minionsctl completion fish | source                         in ~/.config/fish/config.fish

For all users, into the directories that the shells search:
  minionsctl completion bash > /usr/share/bash-completion/completions/minionsctl
  minionsctl completion zsh > /usr/local/share/zsh/site-functions/_minionsctl
  minionsctl completion fish > /usr/share/fish/vendor_completions.d/minionsctl.fish

The script runs the minionsctl that printed it: by its name, if that was found in PATH, otherwise by its path. Print it
again after an upgrade. VMs, programs, labels, pools and files of guests are completed with the daemon of --host,
--context and the configuration. A daemon that does not answer within 50 ms, or refuses, completes nothing.";

/// Arguments of `completion`.
#[derive(Debug, Args)]
#[command(after_help = INSTALLATION)]
pub(crate) struct CompletionArgs {
    /// Shell
    #[arg(value_enum)]
    pub(crate) shell: CompletionShell,
}

/// Shell whose words are completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompletionShell {
    /// GNU Bash, version 4.4 or later
    Bash,
    /// Z shell
    Zsh,
    /// Friendly interactive shell
    Fish,
}
