//! Problem details (RFC 9457) as responses.
//!
//! * [`api_error`]: a failed request, and its response. [`domain`]: conversion of failures of calls and programs.
//!   [`declared`]: conversion of refusals of the declared state.
//! * [`documented`]: problems of each route in the API document.

mod api_error;
mod declared;
mod documented;
mod domain;

pub(super) use api_error::{ApiError, catch_panic, into_body, problem_in};
pub(super) use documented::{
    BodyProblems, DeclaredProblems, ExecProblems, FileBodyProblems, FileProblems, FileReadProblems,
    ForwardProblems, GuestProblems, IdProblems, ListenProblems, ManyProblems, NetworkProblems,
    QuiesceProblems, ServiceProblems, SignalProblems, ThawProblems, VmProblems,
    document_refusal_without_audit, document_replaced_vm,
};
