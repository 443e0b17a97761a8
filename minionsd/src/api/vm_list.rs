//! Body of `GET /vms`. A long list is written in parts while it is sent: it may have megabytes, and writing all of it at once
//! would keep a thread from other requests for many milliseconds.

use super::declared::labels::VmSelection;
use super::problem::ApiError;
use super::state::ApiState;
use super::vms::shown;
use crate::vm::registry::Vms;
use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt};
use minions_api::{ErrorCode, VmName};
use std::io;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

/// Number of VMs in a part.
const PART: usize = 128;

/// Room for a VM in a part. A usual one has 1,100 bytes.
const ROOM: usize = 1536;

/// Number of parts of one list that are written, or wait for the client.
const PARTS_AHEAD: usize = 2;

/// Places for threads that write parts, for all lists: more would take the processor from the tasks that serve VMs.
static WRITERS: Semaphore = Semaphore::const_new(2);

const START: &[u8] = b"{\"vms\":[";
const END: &[u8] = b"]}";

/// The selected VMs as a [`VmList`](minions_api::vm::VmList).
pub(super) struct ListedVms {
    api: ApiState,
    vms: Arc<Vms>,
    selection: VmSelection,
}

impl ListedVms {
    pub(super) fn new(api: ApiState, vms: Arc<Vms>, selection: VmSelection) -> Self {
        Self { api, vms, selection }
    }

    /// Returns the reply. Only a list of several parts is a stream, without `Content-Length`.
    pub(super) fn respond(self) -> Result<Response, ApiError> {
        let mut starts = self.vms.keys().step_by(PART).cloned().collect::<Vec<_>>().into_iter();
        let body = if starts.len() > 1 {
            Body::from_stream(self.parts(starts))
        } else {
            let part = starts.next().map_or_else(|| Ok(Vec::new()), |start| self.part(&start));
            let part = part.map_err(|e| ApiError::of(ErrorCode::Internal, e.to_string()))?;
            Body::from([START, part.get(1..).unwrap_or_default(), END].concat())
        };
        Ok(([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response())
    }

    /// Writes the list in parts that begin with these VMs.
    fn parts(
        self,
        starts: impl Iterator<Item = VmName> + Send + 'static,
    ) -> impl Stream<Item = io::Result<Bytes>> + Send {
        let list = Arc::new(self);
        let written = stream::iter(starts).map(move |start| {
            let list = Arc::clone(&list);
            async move {
                // Fails only if the semaphore is closed, which it never is.
                let place = WRITERS.acquire().await.map_err(io::Error::other)?;
                let written = spawn_blocking(move || {
                    let part = list.part(&start);
                    drop(place);
                    part
                });
                Ok::<_, io::Error>(Bytes::from(written.await.map_err(io::Error::other)??))
            }
        });
        let mut is_first = true;
        let texts = written.buffered(PARTS_AHEAD).filter_map(move |text| {
            let text = match text {
                Ok(text) if text.is_empty() => None,
                Ok(text) if std::mem::take(&mut is_first) => Some(Ok(text.slice(1..))),
                other => Some(other),
            };
            async { text }
        });
        let (start, end) = ([Ok(Bytes::from_static(START))], [Ok(Bytes::from_static(END))]);
        stream::iter(start).chain(texts).chain(stream::iter(end))
    }

    /// Returns the selected VMs of the part that begins with a VM, each after a comma.
    fn part(&self, start: &VmName) -> serde_json::Result<Vec<u8>> {
        let mut text = Vec::with_capacity(PART.min(self.vms.len()) * ROOM);
        for vm in self.vms.range(start..).take(PART).map(|(_, vm)| vm) {
            if let Some(labels) = self.selection.select(&self.api, vm) {
                text.push(b',');
                serde_json::to_writer(&mut text, &shown(&self.api, vm, labels, false))?;
            }
        }
        if text.len() < text.capacity() / 2 {
            // The selection has few of the VMs, and the part may wait for its client.
            text.shrink_to_fit();
        }
        Ok(text)
    }
}
