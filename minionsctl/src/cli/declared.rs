//! Arguments of the commands for declared state.

use clap::{Args, Subcommand};
use minions_api::VmName;
use minions_api::label::LabelSelector;
use std::net::IpAddr;
use std::path::PathBuf;

/// Arguments of `apply`.
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    pub(crate) files: DeclarationFiles,
    /// Only print what would change
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Also remove all pools and declarations that are not in the files
    #[arg(long)]
    pub(crate) prune: bool,
}

/// Arguments of `diff`.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    #[command(flatten)]
    pub(crate) files: DeclarationFiles,
    /// Compare with `apply --prune`
    #[arg(long)]
    pub(crate) prune: bool,
}

/// Files with pools and declarations.
#[derive(Debug, Args)]
pub(crate) struct DeclarationFiles {
    /// YAML or TOML file, directory of such files, or - for YAML on standard input; repeatable
    #[arg(short = 'f', long = "file", value_name = "PATH", required = true)]
    pub(crate) paths: Vec<PathBuf>,
}

/// Arguments of `config`.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// Name of the VM, which need not exist
    pub(crate) vm: VmName,
    /// Apply the configuration now, and wait for the result
    #[arg(long)]
    pub(crate) apply: bool,
    /// Also list all declarations that have each field, and why one of them decides
    #[arg(long, conflicts_with = "apply")]
    pub(crate) explain: bool,
}

/// Commands of `pool`.
#[derive(Debug, Subcommand)]
pub(crate) enum PoolCommand {
    /// List the address pools
    Ls,
    /// List the leases of a pool, or all leases
    Leases {
        /// Name of the pool (default: all leases, also of declared addresses that are in no pool)
        pool: Option<String>,
        /// Print them as a hosts file
        #[arg(long)]
        hosts: bool,
    },
    /// Reserve an address, for a VM or to keep it from all VMs
    Reserve {
        /// Name of the pool
        pool: String,
        /// Address (default: the next free one, for --vm)
        address: Option<IpAddr>,
        /// VM that gets the address
        #[arg(long, value_name = "VM")]
        vm: Option<VmName>,
        /// Interface of the VM, as declared (default: the one that has the address, else the only one in the pool)
        #[arg(
            long,
            value_name = "NAME",
            default_value = "",
            hide_default_value = true,
            requires = "vm"
        )]
        interface: String,
    },
    /// Release an address
    #[command(allow_missing_positional = true)]
    Release {
        /// Name of the pool (default: any, also none)
        pool: Option<String>,
        /// Address of the lease
        address: IpAddr,
    },
}

/// Selection of VMs by labels.
#[derive(Debug, Default, Args)]
pub(crate) struct SelectorArgs {
    /// Only VMs with these labels: app=web,env!=prod,tier,!legacy
    #[arg(short = 'l', long = "selector", value_name = "LABELS")]
    pub(crate) selector: Option<LabelSelector>,
}
