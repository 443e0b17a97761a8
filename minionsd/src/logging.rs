//! The daemon's log: standard error, written by threads of its own.
//!
//! Standard error may be a pipe that is not read at the moment. The async threads therefore only queue
//! lines; when a queue is full, lines are dropped and counted. Audit entries have a queue of their own, so
//! that no amount of other lines can displace them.
//!
//! ```text
//!  tracing ─┬─ all but audit ──▶ queue ── thread ─┬─▶ standard error
//!           └─ audit ──────────▶ queue ── thread ─┘
//! ```

use crate::audit;
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

/// Lines that wait to be written, of each queue.
const MAX_QUEUED: usize = 4096;

/// How often the log says how many of its lines were dropped, if any were.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// The counters of the process's log, which is one for all daemons in it.
static COUNTERS: OnceLock<Counters> = OnceLock::new();

#[derive(Debug)]
struct Counters {
    log: ErrorCounter,
    audit: ErrorCounter,
}

/// Why there is no log.
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

/// Dropped lines since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Dropped {
    pub(crate) log: u64,
    pub(crate) audit: u64,
}

/// Writes what is queued when it is dropped, waiting a second at most.
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
    // A second log in one process, which only tests start, keeps the first one's counters.
    let _ = COUNTERS.set(counters);
    let is_audit = |metadata: &Metadata<'_>| metadata.target() == audit::TARGET;
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

/// Lines of this process's log that were dropped, because standard error was not read.
pub(crate) fn dropped() -> Dropped {
    let count = |counter: &ErrorCounter| counter.dropped_lines().try_into().unwrap_or(u64::MAX);
    COUNTERS.get().map_or_else(Dropped::default, |counters| Dropped {
        log: count(&counters.log),
        audit: count(&counters.audit),
    })
}

/// Logs how many lines were dropped, each time that some were, until `stop`.
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
            let (lines, audit) = (now.log - reported.log, now.audit - reported.audit);
            tracing::warn!(
                lines,
                audit_entries = audit,
                "the log was not read: lines were dropped"
            );
            reported = now;
        }
    }
}
