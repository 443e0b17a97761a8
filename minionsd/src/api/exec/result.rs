//! A program's collected result as a response.

use super::show;
use crate::agent::CallError;
use crate::budget::Share;
use crate::exec::Collected;
use axum::Json;
use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use minions_api::exec::{ExecResult, Outcome};
use minions_proto::message::ExecReply;
use std::convert::Infallible;

/// Number of bytes that are passed to the connection at a time.
const PIECE: usize = 64 * 1024;

/// Result of a program that ran.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) result: ExecResult,
    /// Budget share of the output.
    share: Share,
}

impl Finished {
    /// Converts the output and end of a program of an agent with the feature `exec2`.
    ///
    /// # Errors
    ///
    /// [`CallError::ExecLost`]: the agent lost the program.
    pub(super) fn object(id: &str, collected: Collected) -> Result<Self, CallError> {
        if let minions_proto::message::Outcome::Lost { reason } = &collected.ended.outcome {
            return Err(CallError::ExecLost { reason: reason.clone() });
        }
        let (result, share) = show::collected(id, collected);
        Ok(Self { result, share })
    }

    /// Converts the reply of an agent without that feature.
    pub(super) fn plain(reply: ExecReply, share: Share) -> Self {
        Self { result: show::plain(reply), share }
    }

    /// Reports whether the program exited with status 0.
    pub(super) fn is_success(&self) -> bool {
        self.result.exit_code == 0
    }

    /// Returns the program's end in a few words, for the audit log.
    pub(super) fn in_words(&self) -> String {
        let plain = Outcome::Exited { code: self.result.exit_code };
        show::in_words(self.result.outcome.as_ref().unwrap_or(&plain))
    }
}

/// Sends the result. The output counts against the memory budget until the caller has received it.
impl IntoResponse for Finished {
    fn into_response(self) -> Response {
        let Self { result, share } = self;
        if share.is_empty() {
            return Json(result).into_response();
        }
        let json = Bytes::from(serde_json::to_vec(&result).unwrap_or_default());
        drop(result);
        let length = json.len();
        let pieces = futures_util::stream::unfold((json, share), |(mut json, share)| async move {
            let piece = json.split_to(json.len().min(PIECE));
            (!piece.is_empty()).then_some((Ok::<_, Infallible>(piece), (json, share)))
        });
        let headers = [
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (CONTENT_LENGTH, length.into()),
        ];
        (headers, Body::from_stream(pieces)).into_response()
    }
}
