//! `GET /metrics/guests`: figures of guests in Prometheus's text format.
//!
//! A page has megabytes if there are thousands of VMs, so it is written in parts while it is sent. Its VMs and their samples
//! are those of its beginning.

use super::super::declared::labels::VmQuery;
use super::super::extract::QueryParams;
use super::super::problem::{ApiError, ServiceProblems};
use super::super::state::ApiState;
use super::families::{FAMILIES, GuestFamily};
use super::label_names::prometheus_labels;
use crate::metrics::text::{EscapedLabels, MEDIA_TYPE, MetricType, MetricsPage};
use crate::vm::samples::KeptSample;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use minions_api::ErrorCode;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio::task::spawn_blocking;

/// Limit of pages that are being sent: each keeps the labels of all its VMs.
static PAGES: Semaphore = Semaphore::const_new(32);

/// Places for threads that write parts: more would take the processor from the tasks that serve VMs.
static WRITERS: Semaphore = Semaphore::const_new(2);

/// Number of VMs in a part.
const PART: usize = 256;

/// Number of parts that wait for the client.
const PARTS_AHEAD: usize = 2;

/// Time after which a page ends whose client does not read it.
const STALLED: Duration = Duration::from_secs(30);

/// Get figures of the guests in the Prometheus text format
///
/// Each VM has the label `vm`, and `label_…` for each declared label. Figures end three intervals after the last sample;
/// `minions_guest_sample_age_seconds` remains until the boot ends. Never contacts a guest. docs/OPERATIONS.md lists the
/// metrics.
#[utoipa::path(
    get, path = "/metrics/guests", operation_id = "get_guest_metrics", tag = "service",
    params(VmQuery),
    responses(
        (status = 200, description = "Metrics, in version 0.0.4 of the text format",
            body = String, content_type = "text/plain"),
        ServiceProblems,
    ),
)]
pub(in super::super) async fn get_guest_metrics(
    State(api): State<ApiState>,
    QueryParams(query): QueryParams<VmQuery>,
) -> Result<Response, ApiError> {
    let selection = query.parse()?;
    let vms = api.registry.vms().ok_or_else(ApiError::starting)?;
    let place = PAGES.try_acquire().map_err(|_| {
        ApiError::of(ErrorCode::Overloaded, "too many pages of metrics are being sent".to_owned())
    })?;
    let sampled = spawn_blocking(move || {
        let sampled = vms.values().filter_map(|vm| {
            let kept = vm.samples().latest()?;
            let mut labels = prometheus_labels("label_", selection.select(&api, vm)?);
            labels.insert("vm".to_owned(), vm.name().to_string());
            Some(GuestFigures { labels: EscapedLabels::of(&labels), kept })
        });
        sampled.collect::<Arc<[_]>>()
    });
    let sampled = sampled.await.map_err(|e| ApiError::of(ErrorCode::Internal, e.to_string()))?;
    let (send, parts) = mpsc::channel(PARTS_AHEAD);
    tokio::spawn(write(sampled, send, place));
    let body = stream::unfold(Some(parts), |parts| async {
        let mut parts = parts?;
        match parts.recv().await {
            Some(PagePart::Text(text)) => Some((Ok(text), Some(parts))),
            Some(PagePart::End) => None,
            // Otherwise, half a page would look like a whole one.
            None => Some((Err(io::Error::from(io::ErrorKind::TimedOut)), None)),
        }
    });
    let media_type = HeaderValue::from_static(MEDIA_TYPE);
    Ok(([(CONTENT_TYPE, media_type)], Body::from_stream(body)).into_response())
}

/// Figures of one guest.
struct GuestFigures {
    labels: EscapedLabels,
    kept: KeptSample,
}

/// Part of a page.
enum PagePart {
    Text(String),
    /// Sign that the page is complete.
    End,
}

/// Writes the page, family by family, as fast as the client reads it.
async fn write(
    guests: Arc<[GuestFigures]>,
    parts: mpsc::Sender<PagePart>,
    _place: SemaphorePermit<'static>,
) {
    let families = std::iter::once(None).chain(FAMILIES.iter().map(Some));
    for family in families {
        for start in (0..guests.len().max(1)).step_by(PART) {
            // Fails only if the semaphore is closed, which it never is.
            let Ok(place) = WRITERS.acquire().await else { return };
            let guests = Arc::clone(&guests);
            let written = spawn_blocking(move || {
                let text = part(family, &guests, start);
                drop(place);
                text
            });
            let Ok(text) = written.await else { return };
            if parts.send_timeout(PagePart::Text(text), STALLED).await.is_err() {
                return;
            }
        }
    }
    let _ = parts.send_timeout(PagePart::End, STALLED).await;
}

/// Writes the figures of a family, or the ages of the samples, of the VMs from a position on.
fn part(family: Option<&GuestFamily>, guests: &[GuestFigures], start: usize) -> String {
    let mut page = MetricsPage::default();
    let guests_of_part = guests.iter().skip(start).take(PART);
    let is_first = start == 0;
    let Some(GuestFamily { name, kind, help, figures }) = family else {
        let help = "Time since the last sample of the guest's figures.";
        let name = "minions_guest_sample_age_seconds";
        let mut family = page.family_part(name, MetricType::Gauge, help, is_first);
        for guest in guests_of_part {
            family.labelled(&guest.labels, &[], guest.kept.age().as_secs_f64());
        }
        return page.finish();
    };
    let mut family = page.family_part(name, *kind, help, is_first);
    for guest in guests_of_part.filter(|guest| guest.kept.is_current()) {
        figures(&guest.kept.sample, &mut |labels, value| {
            family.labelled(&guest.labels, labels, value);
        });
    }
    page.finish()
}
