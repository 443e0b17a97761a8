//! Messages: the meaning of frames.
//!
//! Each request has a file, together with its reply. A request is a JSON object with a `type`; a
//! reply is one with a `status`. Both sides ignore unknown fields, and new fields are optional, so
//! that the protocol can grow.

mod bounded;
mod clock;
mod exec;
mod exec_id;
mod exec_stream;
mod health;
mod network;
mod outcome;
mod power;
mod reply;
mod request;
mod signal;
mod status;
mod write_file;

pub use clock::{CLOCK_FEATURE, ClockSet, MAX_TIME_MS, MIN_TIME_MS, SetClock};
pub use exec::{Exec, ExecReply};
pub use exec_id::ExecId;
pub use exec_stream::{
    ExecAttach, ExecAttached, ExecInfo, ExecInspect, ExecList, ExecListed, ExecRemove, ExecSignal,
    ExecStart, FEATURE as EXEC_FEATURE, HEARTBEAT, LIMITS_FEATURE as EXEC_LIMITS_FEATURE,
    MAX_KILL_GRACE_MS, MAX_LIMIT, MAX_TIMEOUT_MS, OnDisconnect, REATTACH_GRACE, RLIMITS, Role, Tty,
    Usage,
};
pub use health::{AgentInfo, Health, HealthCheck, OPERATIONS};
pub use network::{
    CONFIRM_WITHIN_MS, ChangeNetwork, Check, ConfigureNetwork, Dns, DnsPlan,
    FEATURE as NETWORK_FEATURE, InterfaceChange, InterfacePlan, MAX_ADDRESSES, MAX_DNS_SERVERS,
    MAX_INTERFACES, MAX_ROUTES, MAX_SEARCH_DOMAINS, MTU, NetworkChanged, NetworkConfirm,
    NetworkDiff, NetworkPlan, NetworkState, PendingChange, ReadNetwork, Route, RouteChange,
    RoutePlan, Selector,
};
pub use outcome::{Outcome, SignalReason, StartFailure};
pub use power::{POWER_FEATURE, Power, PowerAction};
pub use reply::{Done, ReplyError, decode_reply, encode_error, encode_reply};
pub use request::{Request, RequestError};
pub use signal::Signal;
pub use status::{Filesystem, Interface, Load, Os, ReportStatus, Status};
pub use write_file::WriteFile;

use serde::{Serialize, de::DeserializeOwned};

/// Request as its sender sees it: its name on the wire, its reply, and whether it may be repeated.
pub trait Call: Serialize {
    /// Reply after success.
    type Reply: DeserializeOwned;
    /// Value of `type` on the wire.
    const TYPE: &'static str;
    /// True if the request may be sent again if it is not known whether the first one arrived.
    const IDEMPOTENT: bool;
}

/// Request object: `type`, followed by the fields of the call.
#[derive(Serialize)]
struct Tagged<'a, C> {
    r#type: &'static str,
    #[serde(flatten)]
    call: &'a C,
}

/// Encodes a request as one frame.
///
/// # Errors
///
/// [`EncodeError`](crate::frame::EncodeError) if the request is longer than a frame.
pub fn encode_request<C: Call>(call: &C) -> Result<Vec<u8>, crate::frame::EncodeError> {
    crate::frame::encode(&Tagged { r#type: C::TYPE, call })
}
