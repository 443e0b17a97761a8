//! Messages: the meaning of frames.
//!
//! Each request has a file, together with its reply. A request is a JSON object with a `type`; a
//! reply is one with a `status`. Both sides ignore unknown fields, and new fields are optional, so
//! that the protocol can grow.

mod bounded;
mod call;
mod clock;
mod exec;
mod exec_id;
mod exec_object;
mod exec_stream;
mod feature;
mod file;
mod forward;
mod forward_listen;
mod generation;
mod health;
mod identity;
mod network;
mod outcome;
mod power;
mod quiesce;
mod reply;
mod request;
mod sample;
mod signal;
mod status;
mod write_file;

pub use call::{Call, encode_request};
pub use clock::{ClockSet, MAX_TIME_MS, MIN_TIME_MS, SetClock};
pub use exec::{Exec, ExecReply};
pub use exec_id::ExecId;
pub use exec_object::{ExecInfo, ExecInspect, ExecList, ExecListed, ExecRemove, ExecSignal, Usage};
pub use exec_stream::{
    ExecAttach, ExecAttached, ExecStart, HEARTBEAT, MAX_KILL_GRACE_MS, MAX_LIMIT,
    MAX_REATTACH_GRACE_MS, MAX_TIMEOUT_MS, MIN_REATTACH_GRACE_MS, OnDisconnect, REATTACH_GRACE,
    RLIMITS, Role, Tty,
};
pub use feature::{Feature, Features};
pub use file::{
    FileOperation, FileStart, GuestPath, GuestTarget, ListDirectory, MAX_PATH_LEN, MakeDirectory,
    PackTree, ReadFile, RemoveFile, RenameFile, ServeSession, StatFile, UnpackTree, WatchTree,
    WriteStream,
};
pub(crate) use file::{decoded_name, encoded_name};
pub use forward::{
    DEFAULT_FORWARD_TIMEOUT_MS, ForwardOpen, ForwardOpened, ForwardTarget, MAX_FORWARD_TIMEOUT_MS,
};
pub use forward_listen::{
    ForwardAccept, ForwardAddress, ForwardListen, ForwardListening, ListenerId,
};
pub use generation::{
    EntropyBytes, MAX_HOOK_TIMEOUT_MS, RestoreOutcome, RestoreRequest, RestoreState, RestoreStep,
    RestoreStepKind, TokenCheck, VmmToken,
};
pub use health::{AgentInfo, Health, HealthCheck, OPERATIONS};
pub use identity::{BootId, InstanceId};
pub use network::{
    CONFIRM_WITHIN_MS, ChangeNetwork, Check, ConfigureNetwork, Dns, DnsPlan, InterfaceChange,
    InterfacePlan, MAX_ADDRESSES, MAX_DNS_SERVERS, MAX_INTERFACES, MAX_ROUTES, MAX_SEARCH_DOMAINS,
    MTU, NetworkChanged, NetworkConfirm, NetworkDiff, NetworkPlan, NetworkState, PendingChange,
    ReadNetwork, Route, RouteChange, RoutePlan, Selector,
};
pub use outcome::{Outcome, SignalReason, StartFailure};
pub use power::{Power, PowerAction};
pub use quiesce::{
    DEFAULT_TTL_MS, FrozenFilesystem, HookRun, MAX_TTL_MS, MIN_TTL_MS, Quiesce, QuiesceLease,
    Quiesced, Thaw, Thawed,
};
pub use reply::{Done, ReplyError, decode_reply, encode_error, encode_reply};
pub use request::{Request, RequestError};
pub use sample::{
    AgentFigures, CpuTimes, DiskCounters, GuestSample, InterfaceCounters, MemoryFigures,
    PressureTimes, ProcessCounts, ReportSample,
};
pub use signal::Signal;
pub use status::{Filesystem, Interface, Load, Os, ReportStatus, Status};
pub use write_file::WriteFile;
