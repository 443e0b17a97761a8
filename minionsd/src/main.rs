//! `minionsd`: see the library.

use anyhow::Context;
use clap::Parser;
use minionsd::config::{Args, Command, Config, LogFormat};
use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tracing::Metadata;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(Command::Openapi) = args.command {
        return std::io::stdout()
            .write_all(minionsd::openapi_json().as_bytes())
            .context("the OpenAPI document can't be written");
    }
    let config = Config::load(args).context("the configuration is not valid")?;
    start_logging(&config)?;
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

/// The log goes to standard error. Audit lines go there too, or to a file of their own.
fn start_logging(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.log_level)
        .with_context(|| format!("`log_level` is {:?}: not a tracing filter", config.log_level))?;
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let log = match config.log_format {
        LogFormat::Json => log.json().boxed(),
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).boxed(),
    };
    let audit = config.audit_log.as_deref().map(audit_file).transpose()?;
    // Audit lines are in the log whatever its level, unless they have a file of their own.
    let audit_lines = if audit.is_some() { "audit=off" } else { "audit=info" };
    let filter = filter.add_directive(audit_lines.parse().context("no filter for audit lines")?);
    let log = log.with_filter(filter);
    let is_audit = |metadata: &Metadata<'_>| metadata.target() == minionsd::AUDIT_TARGET;
    let audit = audit.map(|file| {
        let lines = tracing_subscriber::fmt::layer().json().with_writer(Mutex::new(file));
        lines.with_filter(filter_fn(move |metadata| is_audit(metadata) || metadata.is_span()))
    });
    tracing_subscriber::registry().with(log).with(audit).init();
    Ok(())
}

/// Only ours to read: it says who did what.
fn audit_file(path: &Path) -> anyhow::Result<File> {
    let mut open = OpenOptions::new();
    open.append(true).create(true).mode(0o600);
    open.open(path).with_context(|| format!("`audit_log`: {} can't be opened", path.display()))
}
