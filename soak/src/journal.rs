//! Record of events, answers and violations.

use crate::error::SoakError;
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;

/// Maximum number of events that are kept: the last ones.
const KEPT_EVENTS: usize = 20_000;

/// Maximum number of violations that are kept: the first ones.
const KEPT_VIOLATIONS: usize = 50;

/// Number of events that a report shows.
const TAIL: usize = 40;

/// Bounded record of one run.
#[derive(Debug)]
pub(super) struct Journal {
    started: Instant,
    pages: Mutex<JournalState>,
}

#[derive(Debug, Default)]
struct JournalState {
    events: VecDeque<String>,
    violations: Vec<String>,
    violation_count: u64,
    answers: BTreeMap<String, u64>,
}

impl Default for Journal {
    fn default() -> Self {
        Self { started: Instant::now(), pages: Mutex::default() }
    }
}

impl Journal {
    /// Records an event that is permitted.
    pub(super) fn event(&self, text: impl AsRef<str>) {
        let line = format!("{:10.3} {}", self.started.elapsed().as_secs_f64(), text.as_ref());
        let mut pages = self.pages();
        if pages.events.len() == KEPT_EVENTS {
            pages.events.pop_front();
        }
        pages.events.push_back(line);
    }

    /// Records an event that must never happen.
    pub(super) fn violation(&self, text: impl AsRef<str>) {
        let text = text.as_ref();
        self.event(format!("VIOLATION {text}"));
        let at = self.started.elapsed().as_secs_f64();
        let mut pages = self.pages();
        pages.violation_count += 1;
        if pages.violations.len() < KEPT_VIOLATIONS {
            pages.violations.push(format!("{at:.3} s: {text}"));
        }
    }

    /// Counts an answer by its kind: the request and the result.
    pub(super) fn answer(&self, kind: &str) {
        let mut pages = self.pages();
        match pages.answers.get_mut(kind) {
            Some(count) => *count += 1,
            None => {
                pages.answers.insert(kind.to_owned(), 1);
            }
        }
    }

    pub(super) fn answers(&self) -> BTreeMap<String, u64> {
        self.pages().answers.clone()
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.pages().violations.clone()
    }

    pub(super) fn violation_count(&self) -> u64 {
        self.pages().violation_count
    }

    pub(super) fn tail(&self) -> Vec<String> {
        let pages = self.pages();
        let skip = pages.events.len().saturating_sub(TAIL);
        pages.events.iter().skip(skip).cloned().collect()
    }

    /// Writes `events.log` and `report.json`.
    pub(super) fn write(&self, out: &Path, summary: &Value) -> Result<(), SoakError> {
        let mut log = String::new();
        for line in &self.pages().events {
            // Writing to a string cannot fail.
            let _ = writeln!(log, "{line}");
        }
        std::fs::write(out.join("events.log"), log)
            .map_err(SoakError::io("cannot write events.log"))?;
        let report = format!("{summary:#}\n");
        std::fs::write(out.join("report.json"), report)
            .map_err(SoakError::io("cannot write report.json"))
    }

    fn pages(&self) -> MutexGuard<'_, JournalState> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
