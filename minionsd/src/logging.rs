//! The daemon's log: standard error, written by dedicated threads.
//!
//! Standard error may be a pipe that is not read at the moment. The async threads therefore only queue lines; when a
//! queue is full, lines are dropped and counted. Audit entries have a separate queue, so that no amount of other lines
//! can displace them.
//!
//! ```text
//!  tracing ─┬─ all but audit ──▶ queue ── thread ─┬─▶ standard error
//!           └─ audit ──────────▶ queue ── thread ─┘
//! ```

use crate::config::{Config, LogFormat};
use std::io::{self, IsTerminal};
use std::sync::OnceLock;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::Metadata;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{FilterExt, ParseError, filter_fn};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

/// Tracing target of audit entries.
pub(crate) const AUDIT_TARGET: &str = "audit";

/// Maximum number of lines in each queue.
const MAX_QUEUED: usize = 4096;

/// Interval at which dropped lines are reported in the log.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// Counters of the process's log. All daemons in one process share it.
static COUNTERS: OnceLock<Counters> = OnceLock::new();

#[derive(Debug)]
struct Counters {
    log: ErrorCounter,
    audit: ErrorCounter,
}

/// Failure to start the log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter cannot be parsed.
    #[error("`log_level` is {filter:?}: not a tracing filter, such as `info` or `minionsd=debug`")]
    Filter {
        /// The setting's value.
        filter: String,
        /// The cause.
        source: ParseError,
    },
}

/// Number of lines dropped since the start, by queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Dropped {
    pub(crate) log: u64,
    pub(crate) audit: u64,
}

/// Guard that writes the queued lines when it is dropped, for at most a second.
#[derive(Debug)]
pub struct LogGuard {
    _log: WorkerGuard,
    _audit: WorkerGuard,
}

/// Starts the log of this process.
///
/// # Errors
///
/// [`LogError`], naming the setting.
pub fn start(config: &Config) -> Result<LogGuard, LogError> {
    let filter = EnvFilter::try_new(&config.log_level)
        .map_err(|source| LogError::Filter { filter: config.log_level.clone(), source })?;
    let (log, log_guard) = queue("log");
    let (audit, audit_guard) = queue("audit-log");
    let counters = Counters { log: log.error_counter(), audit: audit.error_counter() };
    // A second log in the same process, which only tests start, uses the counters of the first.
    let _ = COUNTERS.set(counters);
    let is_audit = |metadata: &Metadata<'_>| metadata.target() == AUDIT_TARGET;
    // Audit entries are logged at every level of the log.
    let others = filter.and(filter_fn(move |metadata| !is_audit(metadata)));
    let log = layer(config.log_format, log).with_filter(others);
    let audit = layer(config.log_format, audit).with_filter(filter_fn(is_audit));
    tracing_subscriber::registry().with(vec![log.boxed(), audit.boxed()]).init();
    Ok(LogGuard { _log: log_guard, _audit: audit_guard })
}

fn queue(thread: &str) -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(MAX_QUEUED)
        .thread_name(thread)
        .finish(io::stderr())
}

fn layer(format: LogFormat, writer: NonBlocking) -> Box<dyn Layer<Registry> + Send + Sync> {
    let layer = tracing_subscriber::fmt::layer().with_writer(BoxMakeWriter::new(writer));
    match format {
        LogFormat::Json => layer.json().boxed(),
        LogFormat::Text => layer.with_ansi(io::stderr().is_terminal()).boxed(),
    }
}

/// Returns the number of log lines dropped because standard error was not read fast enough.
pub(crate) fn dropped() -> Dropped {
    let count = |counter: &ErrorCounter| counter.dropped_lines().try_into().unwrap_or(u64::MAX);
    COUNTERS.get().map_or_else(Dropped::default, |counters| Dropped {
        log: count(&counters.log),
        audit: count(&counters.audit),
    })
}

/// Logs the number of newly dropped lines, every [`REPORT_EVERY`], until `stop`.
pub(crate) async fn report_dropped(stop: CancellationToken) {
    let mut ticks = interval(REPORT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reported = Dropped::default();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        let now = dropped();
        if now != reported {
            tracing::warn!(
                lines = now.log - reported.log,
                audit_entries = now.audit - reported.audit,
                "log lines were dropped because standard error was not read fast enough"
            );
            reported = now;
        }
    }
}
