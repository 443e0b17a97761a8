//! Commands for contexts.

use clap::Subcommand;

const EXAMPLES: &str = "\
Examples:
  minionsctl context add prod --host https://vm-host:7070 --token-file ~/.minions-token --ca-file ca.pem
  minionsctl context use prod            for all later commands
  minionsctl --context prod ls           for one command
  minionsctl context use default         without a context again

--host, --token-file, --ca-file and --cert-file are the settings of the context.";

/// Commands of `context`.
#[derive(Debug, Subcommand)]
pub(crate) enum ContextCommand {
    /// Add a context with the address of --host, and the files of --token-file, --ca-file and --cert-file
    #[command(after_help = EXAMPLES)]
    Add {
        /// Name of the context
        name: String,
        /// Replace a context with this name
        #[arg(long)]
        replace: bool,
    },
    /// Make a context the current one; `default`: use none
    Use {
        /// Name of the context
        name: String,
    },
    /// List the contexts
    #[command(visible_alias = "list")]
    Ls,
    /// Remove a context
    #[command(alias = "remove")]
    Rm {
        /// Name of the context
        name: String,
    },
    /// Print the name of the current context
    Current,
}
