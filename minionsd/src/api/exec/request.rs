//! Validation of a request for a program, and its conversion to a [`ExecPlan`].

use super::super::problem::ApiError;
use crate::exec::ExecPlan;
use crate::exec::plan::{ExecFollower, TIME_LIMIT};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use minions_api::ErrorCode;
use minions_api::exec::{DEFAULT_OUTPUT_BYTES, ExecRequest, MAX_OUTPUT_BYTES, Tty as ApiTty};
use minions_proto::Invalid;
use minions_proto::message::{ExecId, ExecStart, OnDisconnect, Tty};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Kind of request for a program. Not every field applies to every kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum ExecForm {
    /// `POST /vms/{vm}/exec`.
    Post,
    /// `POST /exec`.
    Many,
    /// First message of a WebSocket.
    WebSocket,
}

/// Validates a request and converts it.
///
/// # Errors
///
/// Names the invalid field.
pub(in super::super) fn plan(request: ExecRequest, form: ExecForm) -> Result<ExecPlan, ApiError> {
    check_form(&request, form)?;
    check_env(&request.env)?;
    let beyond_base = beyond_base(&request);
    let id = match &request.id {
        Some(id) => id.parse().map_err(|invalid| ApiError::value(&invalid))?,
        None => generate_id()?,
    };
    let stdin = input(request.stdin, request.stdin_base64)?;
    let keep = keep(request.max_output_bytes)?;
    let on_disconnect = match request.on_disconnect {
        None if request.detach => OnDisconnect::Detach,
        given => given.unwrap_or_default(),
    };
    let start = ExecStart {
        id: Some(id.clone()),
        command: request.command,
        args: request.args,
        env: request.env,
        cwd: request.cwd,
        user: request.user,
        stdin: stdin.is_some() || form == ExecForm::WebSocket && request.interactive != Some(false),
        tty: request.tty.map(|ApiTty { rows, cols, term }| Tty { rows, cols, term }),
        timeout_ms: request.timeout_ms,
        kill_grace_ms: request.kill_grace_ms,
        rlimits: request.rlimits,
        memory_bytes: request.memory_bytes,
        pids: request.pids,
        on_disconnect,
        // Set for the VM when the program is started.
        reattach_grace_ms: None,
    };
    start.validate().map_err(|invalid| ApiError::value(&invalid))?;
    let follower = match form {
        ExecForm::Post | ExecForm::Many => ExecFollower::Daemon,
        ExecForm::WebSocket => ExecFollower::Client,
    };
    let detach = request.detach;
    Ok(ExecPlan { id, start, stdin, keep, detach, follower, beyond_base, patience: None })
}

/// Generates the id of an exec for which the caller gave none.
pub(in super::super) fn generate_id() -> Result<ExecId, ApiError> {
    let id = Uuid::new_v4().simple().to_string();
    id.parse().map_err(|_| ApiError::of(ErrorCode::Internal, "the generated exec id is invalid"))
}

fn invalid(field: &str, reason: &str) -> ApiError {
    ApiError::invalid(&Invalid::new(field, reason))
}

/// Refuses fields that do not apply to this kind of request.
fn check_form(request: &ExecRequest, form: ExecForm) -> Result<(), ApiError> {
    if form == ExecForm::WebSocket {
        if request.detach {
            return Err(invalid("detach", "is only for POST; over a WebSocket, send `leave`"));
        }
        for (field, given) in
            [("stdin", request.stdin.is_some()), ("stdin_base64", request.stdin_base64.is_some())]
        {
            if given {
                let reason = "is only for POST; over a WebSocket, send input on channel 0";
                return Err(invalid(field, reason));
            }
        }
    } else if request.interactive.is_some() {
        let reason = "is only for the WebSocket; use `stdin` or `stdin_base64`";
        return Err(invalid("interactive", reason));
    }
    if form == ExecForm::Many && request.detach {
        return Err(invalid("detach", "is only for one VM; use POST /vms/{vm}/exec"));
    }
    if request.detach && request.on_disconnect == Some(OnDisconnect::Kill) {
        return Err(invalid("on_disconnect", "is `kill`, which contradicts `detach`"));
    }
    Ok(())
}

/// Checks the environment. The field in the problem includes the variable's name.
fn check_env(env: &BTreeMap<String, String>) -> Result<(), ApiError> {
    for (key, value) in env {
        let reason = if key.is_empty() || key.contains(['=', '\0']) {
            "must have a name that is not empty and contains neither `=` nor NUL"
        } else if value.contains('\0') {
            "contains a NUL byte"
        } else {
            continue;
        };
        return Err(ApiError::value(&Invalid::new(format!("env.{key}"), reason)));
    }
    Ok(())
}

fn beyond_base(request: &ExecRequest) -> Vec<&'static str> {
    let fields = [
        (TIME_LIMIT, request.timeout_ms.is_some()),
        ("env", !request.env.is_empty()),
        ("cwd", request.cwd.is_some()),
        ("user", request.user.is_some()),
        ("stdin", request.stdin.is_some()),
        ("stdin_base64", request.stdin_base64.is_some()),
        ("interactive", request.interactive == Some(true)),
        ("tty", request.tty.is_some()),
        ("kill_grace_ms", request.kill_grace_ms.is_some()),
        ("rlimits", !request.rlimits.is_empty()),
        ("memory_bytes", request.memory_bytes.is_some()),
        ("pids", request.pids.is_some()),
        ("id", request.id.is_some()),
        ("on_disconnect", request.on_disconnect == Some(OnDisconnect::Detach)),
        ("detach", request.detach),
    ];
    fields.into_iter().filter(|(_, asked)| *asked).map(|(field, _)| field).collect()
}

fn input(text: Option<String>, base64: Option<String>) -> Result<Option<Bytes>, ApiError> {
    match (text, base64) {
        (Some(_), Some(_)) => {
            Err(invalid("stdin_base64", "excludes `stdin`; set only one of them"))
        }
        (Some(text), None) => Ok(Some(text.into())),
        (None, Some(base64)) => STANDARD
            .decode(base64)
            .map(|bytes| Some(bytes.into()))
            .map_err(|error| invalid("stdin_base64", &format!("is not base64: {error}"))),
        (None, None) => Ok(None),
    }
}

/// Validates `max_output_bytes`; returns the half of it that is kept of each end of an output.
fn keep(max_output_bytes: Option<u64>) -> Result<usize, ApiError> {
    let max = max_output_bytes.unwrap_or(DEFAULT_OUTPUT_BYTES);
    if max > MAX_OUTPUT_BYTES {
        let reason = format!("is {max}: must be 0 to {MAX_OUTPUT_BYTES}; stream larger output");
        return Err(invalid("max_output_bytes", &reason));
    }
    Ok(usize::try_from(max.div_ceil(2)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::AgentRefusal;
    use serde_json::{Value, json};

    fn plan(request: Value, form: ExecForm) -> Result<ExecPlan, (u16, String, String)> {
        let request = serde_json::from_value(request).unwrap();
        super::plan(request, form).map_err(|error| {
            let problem = error.into_problem("");
            (problem.status, problem.code.to_string(), problem.field.unwrap_or_default())
        })
    }

    fn refused(request: Value, form: ExecForm) -> (u16, String, String) {
        plan(request, form).map(|_| ()).unwrap_err()
    }

    #[test]
    fn a_field_that_does_not_apply_to_a_form_is_refused() {
        for (form, field, value) in [
            (ExecForm::Post, "interactive", json!(true)),
            (ExecForm::Many, "interactive", json!(false)),
            (ExecForm::Many, "detach", json!(true)),
            (ExecForm::WebSocket, "detach", json!(true)),
            (ExecForm::WebSocket, "stdin", json!("")),
            (ExecForm::WebSocket, "stdin_base64", json!("")),
        ] {
            let mut request = json!({ "command": "true" });
            request[field] = value;
            assert_eq!(refused(request, form), (422, "invalid_request".into(), field.into()));
        }
    }

    #[test]
    fn a_program_has_input_only_if_the_client_can_send_it() {
        let stdin = |request, form| plan(request, form).unwrap().start.stdin;
        assert!(!stdin(json!({ "command": "cat" }), ExecForm::Post));
        assert!(stdin(json!({ "command": "cat", "stdin": "" }), ExecForm::Post));
        assert!(stdin(json!({ "command": "cat" }), ExecForm::WebSocket));
        assert!(!stdin(json!({ "command": "cat", "interactive": false }), ExecForm::WebSocket));
    }

    #[test]
    fn a_plain_agent_gets_the_fields_it_supports_and_the_error_names_the_others() {
        let all = plan(
            json!({ "command": "a", "max_output_bytes": 1, "on_disconnect": "kill" }),
            ExecForm::Post,
        );
        assert_eq!(all.unwrap().collected(None).plain(false).unwrap().timeout_ms, None);
        let request = json!({ "command": "a", "timeout_ms": 5 });
        let limited = plan(request.clone(), ExecForm::Post).unwrap();
        assert_eq!(limited.plain(true).unwrap().timeout_ms, Some(5));
        let request = json!({ "command": "a", "timeout_ms": 5, "id": "x", "env": { "A": "" } });
        let AgentRefusal::TooOld(missing) =
            plan(request, ExecForm::Post).unwrap().plain(false).unwrap_err()
        else {
            panic!("not too old")
        };
        assert_eq!(missing.fields, ["timeout_ms", "env", "id"]);
    }
}
