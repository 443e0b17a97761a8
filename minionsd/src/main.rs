//! The `minionsd` binary: command line, configuration, log, runtime and signals. The daemon is the library. `man` is
//! the manual page, in builds that write it.

#[cfg(any(test, feature = "man"))]
mod man;

use anyhow::Context;
use clap::Parser;
use minionsd::config::{Args, Command, Config};
use nix::sys::signal::SigSet;
use std::io::Write;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Returns free memory to the system. The C library keeps most of it: 30 MB after 256 forwards at the same time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    // Signals that the parent process has blocked would never reach minionsd, not even SIGTERM. No other thread runs
    // yet; later threads inherit the mask.
    SigSet::all().thread_unblock().context("cannot unblock signals")?;
    #[cfg(feature = "man")]
    if let Some(request) = manual::files::asked(std::env::args_os().skip(1)) {
        let pages = [man::page(&request.date).context("cannot render the manual page")?];
        return manual::files::write(&request.directory, &pages)
            .context("cannot write the manual page");
    }
    let args = Args::parse();
    if let Some(Command::Openapi) = args.command {
        return std::io::stdout()
            .write_all(minionsd::openapi_json().as_bytes())
            .context("cannot write the OpenAPI document to standard output");
    }
    let config = Config::load(args).context("the configuration is invalid")?;
    let _log = minionsd::logging::start(&config).context("cannot start the log")?;
    minionsd::raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    let served = runtime.block_on(serve(config));
    // Do not wait longer for a blocking thread that hangs, for example in a lookup in a remote user database.
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let mut interrupt =
        signal(SignalKind::interrupt()).context("cannot install a handler for SIGINT")?;
    let mut terminate =
        signal(SignalKind::terminate()).context("cannot install a handler for SIGTERM")?;
    let shutdown = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    minionsd::run(config, shutdown).await.context("minionsd cannot start")
}
