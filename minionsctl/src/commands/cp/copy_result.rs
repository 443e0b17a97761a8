//! Result of a copy, as JSON.

use super::copy_end::CopyEnd;
use super::failure_log::FailureLog;
use super::job::CopySummary;
use crate::failure::Failure;
use crate::output::failure_line;
use minions_api::VmName;
use serde::Serialize;

/// Result of one copy.
#[derive(Debug, Serialize)]
pub(super) struct CopyResult {
    /// `ok`, `incomplete` if files were left out, or `failed`.
    pub(super) status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    vm: Option<VmName>,
    source: String,
    destination: String,
    /// Number of files that were created.
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<u64>,
    /// Number of bytes that were transferred.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    /// Number of files that were left out.
    left_out: u64,
    /// Messages about them, at most 100; of a failed copy, also its reason.
    failures: Vec<String>,
}

impl CopyResult {
    pub(super) fn of(
        ends: (&CopyEnd, &CopyEnd),
        vm: Option<VmName>,
        copied: Result<CopySummary, &Failure>,
        log: &FailureLog,
    ) -> Self {
        let (left_out, mut failures) = log.result();
        let status = match &copied {
            Ok(_) if left_out == 0 => "ok",
            Ok(_) => "incomplete",
            Err(failure) => {
                failures.push(failure_line(failure));
                "failed"
            }
        };
        let summary = copied.ok();
        Self {
            status,
            vm,
            source: ends.0.to_string(),
            destination: ends.1.to_string(),
            files: summary.and_then(|summary| summary.files),
            bytes: summary.map(|summary| summary.bytes),
            left_out,
            failures,
        }
    }

    /// Reports whether all files were copied.
    pub(super) fn is_ok(&self) -> bool {
        self.status == "ok"
    }
}
