//! The audit log of operate calls: caller, action, VM and outcome.
//!
//! ```text
//!  admitted call ── begin ──▶ written, then the handler runs ── end ──▶ written, then the reply
//!  refused call  ── refusal ─▶ counted by caller ── once a second ──▶ one entry per caller
//! ```
//!
//! Entries go to a separate file, or to the log under the target [`AUDIT_TARGET`](crate::logging::AUDIT_TARGET). The file confirms each entry; while it
//! cannot be written, `audit = "required"` refuses operate calls. The log confirms nothing, but its queue for audit
//! entries is separate from that of all other lines.
//!
//! * [`entry`]: one entry, as JSON and as a log event.
//! * [`file`]: the thread that writes the file.
//! * [`figures`]: the counts of written and lost entries.
//! * [`refusals`]: the counts of refused calls.

mod entry;
mod figures;
mod file;
mod refusals;

pub(crate) use entry::{By, Entry, Program, Stage};
pub(crate) use figures::AuditFigures;
pub(crate) use refusals::Refusal;

use crate::config::{AuditRule, Config};
use file::{AuditFile, Keep};
use refusals::Refusals;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Failure to open the audit log at start.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the file {} of `audit_log`", .path.display())]
pub struct AuditError {
    path: PathBuf,
    source: io::Error,
}

/// Failure to write an entry that must be written before the call continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the audit log cannot be written")]
pub(crate) struct Unavailable;

/// The audit log. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Audit {
    sink: Sink,
    rule: AuditRule,
    refusals: Arc<Refusals>,
}

#[derive(Debug, Clone)]
enum Sink {
    Log,
    File(AuditFile),
}

impl Audit {
    /// Opens the configured file, if there is one.
    ///
    /// # Errors
    ///
    /// [`AuditError`], naming the file.
    pub(crate) fn open(config: &Config) -> Result<Self, AuditError> {
        let sink = match &config.audit_log {
            Some(path) => {
                let file = AuditFile::open(path);
                Sink::File(file.map_err(|source| AuditError { path: path.clone(), source })?)
            }
            None => Sink::Log,
        };
        Ok(Self { sink, rule: config.audit, refusals: Arc::default() })
    }

    /// Writes the first entry of a call; it is in the file when this returns.
    ///
    /// # Errors
    ///
    /// [`Unavailable`], only with `audit = "required"`: the call must not continue.
    ///
    /// Cancel safe: the entry is written or not, as a whole.
    pub(crate) async fn begin(&self, entry: Entry) -> Result<(), Unavailable> {
        match (&self.sink, self.rule) {
            (Sink::Log, _) => entry.log(),
            (Sink::File(file), AuditRule::BestEffort) => {
                file.write(&entry, Keep::UntilWritten).await;
            }
            (Sink::File(file), AuditRule::Required) => {
                if !file.write(&entry, Keep::Never).await {
                    return Err(Unavailable);
                }
            }
        }
        Ok(())
    }

    /// Writes the last entry of a call, and waits until it is in the file. If it cannot be written now, it
    /// is kept and written later.
    pub(crate) async fn end(&self, entry: Entry) {
        match &self.sink {
            Sink::Log => entry.log(),
            Sink::File(file) => {
                file.write(&entry, Keep::UntilWritten).await;
            }
        }
    }

    /// Writes the last entry of a call without waiting, for calls whose future was dropped.
    pub(crate) fn end_without_waiting(&self, entry: &Entry) {
        match &self.sink {
            Sink::Log => entry.log(),
            Sink::File(file) => file.submit(entry),
        }
    }

    /// Counts a refused call. Returns the number of this caller's refusals, including this one, since the last entry.
    pub(crate) fn refused(&self, refusal: Refusal) -> u64 {
        self.refusals.add(refusal)
    }

    /// Writes the counts of refused calls, once a second while there are any, until `stop`.
    pub(crate) async fn write_refusals(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = self.refusals.due() => self.flush_refusals(),
                () = stop.cancelled() => break,
            }
        }
        self.flush_refusals();
        if let Sink::File(file) = &self.sink {
            file.flush().await;
        }
    }

    fn flush_refusals(&self) {
        for entry in self.refusals.take() {
            self.end_without_waiting(&entry);
        }
    }

    /// Reports whether operate calls are refused at the moment.
    pub(crate) fn refuses_calls(&self) -> bool {
        self.rule == AuditRule::Required && !self.figures().is_writable
    }

    pub(crate) fn figures(&self) -> AuditFigures {
        match &self.sink {
            Sink::Log => {
                let lost = crate::logging::dropped().audit;
                AuditFigures { is_writable: true, failures: lost, lost }
            }
            Sink::File(file) => file.figures(),
        }
    }
}
