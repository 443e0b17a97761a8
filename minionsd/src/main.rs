//! `minionsd`: see the library.

use anyhow::Context;
use clap::Parser;
use minionsd::config::{Args, Command, Config};
use nix::sys::signal::SigSet;
use std::io::Write;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> anyhow::Result<()> {
    // A parent may leave signals blocked, and minionsd would never hear that it is to stop. No thread has been
    // started yet; those that follow inherit this.
    SigSet::all().thread_unblock().context("signals cannot be unblocked")?;
    let args = Args::parse();
    if let Some(Command::Openapi) = args.command {
        return std::io::stdout()
            .write_all(minionsd::openapi_json().as_bytes())
            .context("the OpenAPI document can't be written");
    }
    let config = Config::load(args).context("the configuration is not valid")?;
    let _log = minionsd::logging::start(&config).context("the log cannot be started")?;
    minionsd::raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the async runtime can't start")?;
    let served = runtime.block_on(serve(config));
    // A thread that hangs (in a user database on another machine, say) is not waited for.
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("no handler for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("no handler for SIGTERM")?;
    let shutdown = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    minionsd::run(config, shutdown).await.context("minionsd can't start")
}
