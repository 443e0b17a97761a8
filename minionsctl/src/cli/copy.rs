//! Arguments of `cp`.

use clap::Args;
use std::ffi::OsString;

const EXAMPLES: &str = "\
Examples:
  minionsctl cp app.conf web-1:/etc/app.conf           a file into a guest
  minionsctl cp web-1:/var/log/app.log .               a file out of a guest
  minionsctl cp -r site web-1:/srv/                    a tree: becomes /srv/site
  minionsctl cp -r site/. web-1:/srv                   only its contents
  minionsctl cp -a web-1:/srv/site web-2:/srv/         from guest to guest
  minionsctl cp web-1:/srv/site - | tar t              a tar stream
  minionsctl cp --on 'web-*' app.conf :/etc/           into many guests

A destination that is an existing directory receives the source under its own name; another destination is the new name.
A source that ends with `/.` stands for the contents of the directory. A file gets its name only when it is complete.

Exit code: 1 if a file could not be copied; standard error names it, and the others are copied.";

/// Arguments of `cp`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CopyArgs {
    /// Sources, then the destination: VM:/PATH, a path on this host, or - for a tar stream
    #[arg(required = true, num_args = 2.., value_name = "SRC… DST")]
    pub(crate) locations: Vec<OsString>,

    /// Copy directories with everything beneath them, and symbolic links as links
    #[arg(short, long, visible_short_alias = 'R')]
    pub(crate) recursive: bool,

    /// Copy as with -r, and keep modification times, extended attributes and, if the receiving user is root, owners
    #[arg(short, long)]
    pub(crate) archive: bool,

    /// Also keep set-user-id, set-group-id and file capabilities, with -a
    #[arg(long, requires = "archive")]
    pub(crate) set_id: bool,

    /// User of the guest whose rights apply, by name or number (default: root)
    #[arg(short, long, value_name = "USER")]
    pub(crate) user: Option<String>,

    /// Permission bits of the copied files in octal (default: those of the source). Not with -r and -a
    #[arg(short, long, value_name = "MODE", value_parser = octal, conflicts_with_all = ["recursive", "archive"])]
    pub(crate) mode: Option<u32>,

    /// Show no progress
    #[arg(short, long)]
    pub(crate) quiet: bool,

    #[command(flatten)]
    pub(crate) many: CopyManyArgs,
}

/// Arguments of `cp` to many VMs.
#[derive(Debug, Args)]
#[command(next_help_heading = "To many VMs")]
pub(crate) struct CopyManyArgs {
    /// A VM, or a pattern with `*` and `?`, repeatable; the destination is then :/PATH
    #[arg(long, value_name = "NAME")]
    pub(crate) on: Vec<String>,

    /// All VMs; the destination is then :/PATH
    #[arg(long, conflicts_with = "on")]
    pub(crate) all: bool,

    /// Number of VMs at the same time, 1 to 256 (default: 32)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) concurrency: Option<u32>,

    /// Start no further copy after one has failed
    #[arg(long)]
    pub(crate) fail_fast: bool,
}

impl CopyManyArgs {
    /// Reports whether `--on` or `--all` selects many VMs.
    pub(crate) fn is_meant(&self) -> bool {
        self.all || !self.on.is_empty()
    }

    /// Reports whether an option is given that requires `--on` or `--all`.
    pub(crate) fn is_said(&self) -> bool {
        self.concurrency.is_some() || self.fail_fast
    }
}

/// Parses permission bits in octal.
fn octal(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| "must be permission bits in octal, at most 777".to_owned())
}
