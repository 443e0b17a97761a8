//! For the fuzz targets alone: what happens to a request's body before anybody is asked to do something.

use super::exec::planned;
use super::extract::from_json;
use minions_api::exec::{AttachRequest, ManyExecRequest, SignalRequest};
use minions_api::network::{NetworkConfirmRequest, NetworkRequest};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// Reads `body` as each kind of request. What is taken says the same when it is sent again.
pub fn bodies(body: &[u8]) {
    planned(body);
    again::<ManyExecRequest>(body);
    again::<AttachRequest>(body);
    again::<SignalRequest>(body);
    again::<NetworkConfirmRequest>(body);
    if let Some(request) = again::<NetworkRequest>(body) {
        let _ = super::network::wire(request).plan();
    }
}

/// What it says, if it says anything.
pub(super) fn again<T: Serialize + DeserializeOwned + PartialEq + Debug>(body: &[u8]) -> Option<T> {
    let request: T = from_json(body).ok()?;
    let sent = serde_json::to_vec(&request).expect("what was JSON is JSON");
    let read: T = from_json(&sent).expect("what was taken is taken again");
    assert_eq!(read, request);
    Some(request)
}
