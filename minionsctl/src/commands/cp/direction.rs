//! Direction of a copy.

use super::copy_end::CopyEnd;
use super::failure_log::FailureLog;
use super::job::{CopyDestination, CopyJob, CopySummary};
use super::{between, download, upload};
use crate::failure::Failure;
use std::sync::Arc;

/// Copies one source.
pub(super) async fn copy(
    job: &CopyJob<'_>,
    source: &CopyEnd,
    destination: &CopyDestination,
    log: &Arc<FailureLog>,
) -> Result<CopySummary, Failure> {
    match (source, &destination.end) {
        (CopyEnd::Host(path), CopyEnd::Guest(_)) => upload::run(job, path, destination, log).await,
        (CopyEnd::Stream, CopyEnd::Guest(file)) => {
            upload::stream(job, file, destination.state, log).await
        }
        (CopyEnd::Guest(file), CopyEnd::Host(_)) => {
            download::run(job, file, destination, log).await
        }
        (CopyEnd::Guest(file), CopyEnd::Stream) => download::stream(job, file, log).await,
        (CopyEnd::Guest(file), CopyEnd::Guest(_)) => {
            between::run(job, file, destination, log).await
        }
        (CopyEnd::Host(_) | CopyEnd::Stream, CopyEnd::Host(_) | CopyEnd::Stream) => {
            Err(Failure::Usage("one of source and destination must be in a guest: VM:/PATH"))
        }
    }
}
