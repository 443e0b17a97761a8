//! Programs that run to their end or in the background, and the kernel's figures about them.

pub(crate) mod background;
pub(crate) mod foreground;
pub(crate) mod usage;

use std::{
    net::{SocketAddr, TcpListener},
    path::PathBuf,
};

use anyhow::Context;

/// Paths of the measured programs.
#[derive(Debug)]
pub(crate) struct MeasuredPrograms {
    pub(crate) minionsd: PathBuf,
    pub(crate) minionsctl: PathBuf,
    /// Static build, as installed in a guest.
    pub(crate) agent: PathBuf,
    /// Program of the benchmarks, which is also the responder.
    pub(crate) bench: PathBuf,
}

/// Number of rounds, and work in each of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WorkAmount {
    pub(crate) rounds: u32,
    /// Shows that the benchmarks run, but the figures mean little.
    pub(crate) is_quick: bool,
}

/// Returns a local address that is free at the moment.
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot find a free port")?;
    Ok(listener.local_addr()?)
}
