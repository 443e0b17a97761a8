//! Entry points of the fuzz targets: the processing of a request's body before a guest is contacted.

use super::exec::request::{self, ExecForm};
use super::extract::from_json;
use minions_api::exec::{AttachRequest, ExecRequest, ManyExecRequest, SignalRequest};
use minions_api::network::{NetworkConfirmRequest, NetworkRequest};
use minions_api::quiesce::QuiesceRequest;
use minions_proto::message::{ChangeNetwork, encode_request};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// Parses `body` as each kind of request, and checks that an accepted request is unchanged by serializing and parsing
/// it again.
pub fn bodies(body: &[u8]) {
    planned(body);
    round_trip::<ManyExecRequest>(body);
    round_trip::<AttachRequest>(body);
    round_trip::<SignalRequest>(body);
    round_trip::<NetworkConfirmRequest>(body);
    round_trip::<QuiesceRequest>(body);
    if let Some(request) = round_trip::<NetworkRequest>(body) {
        let _ = ChangeNetwork::from(request).plan();
    }
}

/// Processes a request for a program up to the encoded message.
fn planned(body: &[u8]) {
    for form in [ExecForm::Post, ExecForm::Many, ExecForm::WebSocket] {
        let Some(request) = round_trip::<ExecRequest>(body) else { return };
        if let Ok(plan) = request::plan(request, form) {
            plan.start.validate().expect("a plan is valid");
            let _ = encode_request(&plan.start);
        }
    }
}

/// Returns the request in `body` if it is accepted, after checking that it survives a round trip.
fn round_trip<T: Serialize + DeserializeOwned + PartialEq + Debug>(body: &[u8]) -> Option<T> {
    let request: T = from_json(body).ok()?;
    let serialized = serde_json::to_vec(&request).expect("an accepted request serializes");
    let parsed: T = from_json(&serialized).expect("a serialized request is accepted again");
    assert_eq!(parsed, request);
    Some(request)
}
