//! Problems of each route in the API document.

use super::domain::REFUSED_BY_THE_AGENT;
use minions_api::ErrorCode;
use minions_api::problem::MEDIA_TYPE;
use std::collections::BTreeMap;
use utoipa::openapi::path::Operation;
use utoipa::openapi::response::{Response as DocumentedResponse, ResponseBuilder};
use utoipa::openapi::{ContentBuilder, Ref, RefOr};

/// Returns the documentation of the problems with these codes, one response per status.
fn documented(codes: &[ErrorCode]) -> BTreeMap<String, RefOr<DocumentedResponse>> {
    let mut by_status: BTreeMap<u16, Vec<ErrorCode>> = BTreeMap::new();
    for code in codes {
        by_status.entry(code.status()).or_default().push(*code);
    }
    // Any request can be malformed.
    by_status.entry(400).or_default().push(ErrorCode::InvalidRequest);
    if codes.contains(&ErrorCode::AgentError) {
        by_status.entry(REFUSED_BY_THE_AGENT).or_default().push(ErrorCode::AgentError);
    }
    let schema = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let response = |codes: &[ErrorCode]| {
        let titles: Vec<_> =
            codes.iter().map(|code| format!("`{code}`: {}", code.title())).collect();
        ResponseBuilder::new()
            .description(titles.join("; "))
            .content(MEDIA_TYPE, schema.clone())
            .build()
    };
    by_status
        .into_iter()
        .map(|(status, codes)| (status.to_string(), RefOr::T(response(&codes))))
        .collect()
}

/// Adds `audit_unavailable` to the documented 503 of an operation with the scope *operate*.
pub(in super::super) fn document_refusal_without_audit(operation: &mut Operation) {
    let code = ErrorCode::AuditUnavailable;
    let response = operation.responses.responses.get_mut(&code.status().to_string());
    if let Some(RefOr::T(response)) = response {
        response.description = format!("{}; `{code}`: {}", response.description, code.title());
    }
}

/// Adds `vm_replaced` to the documented problems of an operation.
pub(in super::super) fn document_replaced_vm(operation: &mut Operation) {
    let code = ErrorCode::VmReplaced;
    let status = code.status().to_string();
    let responses = &mut operation.responses.responses;
    match responses.get_mut(&status) {
        Some(RefOr::T(response)) => {
            response.description = format!("{}; `{code}`: {}", response.description, code.title());
        }
        Some(RefOr::Ref(_)) => {}
        None => {
            let mut documented = documented(&[code]);
            responses.extend(documented.remove(&status).map(|response| (status, response)));
        }
    }
}

/// Problems of any request.
const ANYWHERE: &[ErrorCode] =
    &[ErrorCode::Unauthenticated, ErrorCode::Forbidden, ErrorCode::Internal];

/// Problems of requests that name a VM.
const ABOUT_A_VM: &[ErrorCode] = &[
    ErrorCode::InvalidRequest,
    ErrorCode::VmNotFound,
    ErrorCode::Overloaded,
    ErrorCode::ShuttingDown,
];

/// Problems of calls to an agent.
const IN_A_GUEST: &[ErrorCode] = &[
    ErrorCode::AgentError,
    ErrorCode::AgentTooOld,
    ErrorCode::AgentProtocolError,
    ErrorCode::ConnectionLost,
    ErrorCode::AgentUnreachable,
    ErrorCode::AgentTimeout,
    ErrorCode::Quiesced,
];

/// Problems of requests with a body.
const WITH_A_BODY: &[ErrorCode] = &[ErrorCode::PayloadTooLarge, ErrorCode::UnsupportedMediaType];

/// Problems of starting a program in a guest.
const WITH_A_PROGRAM: &[ErrorCode] = &[
    ErrorCode::CommandNotFound,
    ErrorCode::CommandNotExecutable,
    ErrorCode::ArgumentListTooLong,
    ErrorCode::UserNotFound,
    ErrorCode::CwdNotFound,
    ErrorCode::InvalidEnv,
];

/// Problems of files.
const WITH_A_FILE: &[ErrorCode] = &[
    ErrorCode::FileNotFound,
    ErrorCode::FileExists,
    ErrorCode::FileChanged,
    ErrorCode::FileAccessDenied,
    ErrorCode::NoSpaceLeft,
    ErrorCode::FileFailed,
    ErrorCode::UserNotFound,
];

/// Problems of an exec id.
const WITH_AN_ID: &[ErrorCode] =
    &[ErrorCode::InvalidExecId, ErrorCode::ExecGone, ErrorCode::ExecConflict];

/// Problems of a network change.
const WITH_A_NETWORK: &[ErrorCode] = &[
    ErrorCode::NetworkFailed,
    ErrorCode::NetworkPending,
    ErrorCode::NetworkChangeGone,
    ErrorCode::VmDeclared,
];

/// Problems of sending a signal.
const WITH_A_SIGNAL: &[ErrorCode] = &[ErrorCode::InvalidSignal];

/// Problems of the declared state.
const IN_DECLARED_STATE: &[ErrorCode] = &[
    ErrorCode::DeclarationNotFound,
    ErrorCode::PoolNotFound,
    ErrorCode::LeaseNotFound,
    ErrorCode::RevisionChanged,
    ErrorCode::PoolConflict,
    ErrorCode::AddressConflict,
    ErrorCode::PoolExhausted,
    ErrorCode::StateUnavailable,
    ErrorCode::AgentTimeout,
];

macro_rules! problems {
    ($($(#[$doc:meta])* $name:ident = $($codes:expr),+;)+) => {$(
        $(#[$doc])*
        pub(in super::super) struct $name;

        impl utoipa::IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<DocumentedResponse>> {
                documented(&[$($codes),+].concat())
            }
        }
    )+};
}

problems! {
    /// Problems of a route that contacts no VM.
    ServiceProblems = ANYWHERE, &[ErrorCode::Overloaded, ErrorCode::ShuttingDown];
    /// Problems of a route that looks up a VM.
    VmProblems = ANYWHERE, ABOUT_A_VM;
    /// Problems of a route that calls an agent.
    GuestProblems = ANYWHERE, ABOUT_A_VM, IN_A_GUEST;
    /// Problems of a route that calls an agent and takes a body.
    BodyProblems = ANYWHERE, ABOUT_A_VM, IN_A_GUEST, WITH_A_BODY;
    /// Problems of the route that quiesces a guest.
    QuiesceProblems = ANYWHERE, ABOUT_A_VM, IN_A_GUEST, WITH_A_BODY, &[ErrorCode::QuiesceFailed];
    /// Problems of the route that thaws a guest.
    ThawProblems = ANYWHERE, ABOUT_A_VM, IN_A_GUEST, &[ErrorCode::NotQuiesced];
    /// Problems of a route that changes a network.
    NetworkProblems = ANYWHERE, ABOUT_A_VM, IN_A_GUEST, WITH_A_BODY, WITH_A_NETWORK;
    /// Problems of a route about the declared state.
    DeclaredProblems = ANYWHERE, ABOUT_A_VM, WITH_A_BODY, IN_DECLARED_STATE;
    /// Problems of a route that runs a program.
    ExecProblems = ANYWHERE, ABOUT_A_VM, IN_A_GUEST, WITH_A_BODY, WITH_A_PROGRAM, WITH_AN_ID;
    /// Problems of a route that runs a program on many VMs. A failure on one VM is reported in its line, not as a
    /// problem of the request.
    ManyProblems = ANYWHERE, ABOUT_A_VM, WITH_A_BODY, &[ErrorCode::InvalidEnv, ErrorCode::InvalidExecId];
    /// Problems of a route that names an exec.
    IdProblems = ANYWHERE, ABOUT_A_VM, IN_A_GUEST, WITH_AN_ID;
    /// Problems of a route about a file.
    FileProblems = ANYWHERE, ABOUT_A_VM, IN_A_GUEST, WITH_A_FILE, &[ErrorCode::UnsupportedMediaType];
    /// Problems of the route that reads a file.
    FileReadProblems = ANYWHERE, ABOUT_A_VM, IN_A_GUEST, WITH_A_FILE, &[ErrorCode::RangeNotSatisfiable];
    /// Problems of a route about a file that takes a JSON body.
    FileBodyProblems = ANYWHERE, ABOUT_A_VM, IN_A_GUEST, WITH_A_FILE, WITH_A_BODY;
    /// Problems of a route whose reply is a connection in a guest.
    ForwardProblems = ANYWHERE, ABOUT_A_VM, IN_A_GUEST, &[ErrorCode::ForwardFailed];
    /// Problems of the route that listens in a guest.
    ListenProblems = ANYWHERE, ABOUT_A_VM, IN_A_GUEST, &[ErrorCode::ForwardFailed, ErrorCode::UserNotFound];
    /// Problems of the route that sends a signal.
    SignalProblems = ANYWHERE, ABOUT_A_VM, IN_A_GUEST, WITH_A_BODY, WITH_AN_ID, WITH_A_SIGNAL;
}
