//! A validated request for a program, converted to the wire's message.

use super::super::problem::ApiError;
use crate::agent::CallError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use minions_api::ErrorCode;
use minions_api::exec::{
    DEFAULT_OUTPUT_BYTES, ExecRequest, MAX_OUTPUT_BYTES, OnDisconnect as ApiOnDisconnect,
    Tty as ApiTty,
};
use minions_proto::Invalid;
use minions_proto::message::{Exec, ExecId, ExecStart, OnDisconnect, Tty};
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

/// Time limit of a collected program whose caller sets none.
const DEFAULT_LIMIT: Duration = Duration::from_secs(10 * 60);

/// Kill grace of an agent if the caller sets none.
const KILL_GRACE: Duration = Duration::from_millis(500);

/// Kind of request for a program. Not every field applies to every kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `POST /vms/{vm}/exec`.
    Post,
    /// `POST /exec`.
    Many,
    /// First message of a WebSocket.
    WebSocket,
}

/// A program to be run.
#[derive(Debug)]
pub(super) struct Plan {
    /// The wire's message, with the caller's id or a generated one.
    pub(super) start: ExecStart,
    /// Standard input.
    pub(super) stdin: Option<Bytes>,
    /// Bytes to keep of the beginning, and of the end, of each output.
    pub(super) keep: usize,
    /// The program continues after the request.
    pub(super) detach: bool,
    /// The caller has set the time limit.
    asked_limit: bool,
    /// Fields of the request that a plain agent does not support.
    beyond_plain: Vec<&'static str>,
}

impl Plan {
    /// Validates and converts a request.
    ///
    /// # Errors
    ///
    /// Names the invalid field.
    pub(super) fn of(request: ExecRequest, form: Form) -> Result<Self, ApiError> {
        check_form(&request, form)?;
        check_env(&request.env)?;
        let beyond_plain = beyond_plain(&request);
        let id = match &request.id {
            Some(id) => id.parse().map_err(|invalid| ApiError::value(&invalid))?,
            None => generate_id()?,
        };
        let stdin = input(request.stdin, request.stdin_base64)?;
        let keep = keep(request.max_output_bytes)?;
        let on_disconnect = match request.on_disconnect {
            Some(ApiOnDisconnect::Detach) => OnDisconnect::Detach,
            None if request.detach => OnDisconnect::Detach,
            Some(ApiOnDisconnect::Kill) | None => OnDisconnect::Kill,
        };
        let start = ExecStart {
            id: Some(id),
            command: request.command,
            args: request.args,
            env: request.env,
            cwd: request.cwd,
            user: request.user,
            stdin: stdin.is_some() || form == Form::WebSocket && request.interactive != Some(false),
            tty: request.tty.map(|ApiTty { rows, cols, term }| Tty { rows, cols, term }),
            timeout_ms: request.timeout_ms,
            kill_grace_ms: request.kill_grace_ms,
            rlimits: request.rlimits,
            memory_bytes: request.memory_bytes,
            pids: request.pids,
            on_disconnect,
        };
        start.validate().map_err(|invalid| ApiError::value(&invalid))?;
        let asked_limit = start.timeout_ms.is_some();
        Ok(Self { start, stdin, keep, detach: request.detach, asked_limit, beyond_plain })
    }

    /// Returns the id of the program.
    pub(super) fn id(&self) -> &str {
        self.start.id.as_ref().map_or("", ExecId::as_str)
    }

    /// Applies the default time limit if the caller set none, because a collected program must have a limit.
    pub(super) fn limited(mut self) -> Self {
        let default = u64::try_from(DEFAULT_LIMIT.as_millis()).ok();
        self.start.timeout_ms = self.start.timeout_ms.or(default);
        self
    }

    /// Returns the time that the program may take, including its kill grace; `None` without a time limit.
    pub(super) fn longest(&self) -> Option<Duration> {
        let grace = self.start.kill_grace_ms.map_or(KILL_GRACE, Duration::from_millis);
        self.start.timeout_ms.map(|ms| Duration::from_millis(ms) + grace)
    }

    /// Converts the plan to a request for a plain agent. `limits` tells whether that agent supports time limits.
    ///
    /// # Errors
    ///
    /// [`CallError::TooOld`], naming the fields that the agent does not support.
    pub(super) fn plain(&self, limits: bool) -> Result<Exec, CallError> {
        let limit = (self.asked_limit && !limits).then_some("timeout_ms");
        let beyond: Vec<_> = limit.into_iter().chain(self.beyond_plain.iter().copied()).collect();
        if let Some(first) = beyond.first() {
            let fields = beyond.iter().map(|field| format!("`{field}`")).collect::<Vec<_>>();
            let needs = format!("{} for programs", fields.join(", "));
            return Err(CallError::TooOld { needs, field: Some((*first).to_owned()) });
        }
        Ok(Exec {
            command: self.start.command.clone(),
            args: self.start.args.clone(),
            timeout_ms: self.start.timeout_ms.filter(|_| limits),
        })
    }
}

fn generate_id() -> Result<ExecId, ApiError> {
    let id = Uuid::new_v4().simple().to_string();
    id.parse().map_err(|_| ApiError::of(ErrorCode::Internal, "the generated exec id is invalid"))
}

fn invalid(field: &str, reason: &str) -> ApiError {
    ApiError::invalid(&Invalid::new(field, reason))
}

/// Refuses fields that do not apply to this kind of request.
fn check_form(request: &ExecRequest, form: Form) -> Result<(), ApiError> {
    if form == Form::WebSocket {
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
    if form == Form::Many && request.detach {
        return Err(invalid("detach", "is only for one VM; use POST /vms/{vm}/exec"));
    }
    if request.detach && request.on_disconnect == Some(ApiOnDisconnect::Kill) {
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

fn beyond_plain(request: &ExecRequest) -> Vec<&'static str> {
    let fields = [
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
        ("on_disconnect", request.on_disconnect == Some(ApiOnDisconnect::Detach)),
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
    use serde_json::{Value, json};

    fn plan(request: Value, form: Form) -> Result<Plan, (u16, String, String)> {
        let request = serde_json::from_value(request).unwrap();
        Plan::of(request, form).map_err(|error| {
            let problem = error.into_problem("");
            (problem.status, problem.code.to_string(), problem.field.unwrap_or_default())
        })
    }

    fn refused(request: Value, form: Form) -> (u16, String, String) {
        plan(request, form).map(|_| ()).unwrap_err()
    }

    #[test]
    fn a_field_that_does_not_apply_to_a_form_is_refused() {
        for (form, field, value) in [
            (Form::Post, "interactive", json!(true)),
            (Form::Many, "interactive", json!(false)),
            (Form::Many, "detach", json!(true)),
            (Form::WebSocket, "detach", json!(true)),
            (Form::WebSocket, "stdin", json!("")),
            (Form::WebSocket, "stdin_base64", json!("")),
        ] {
            let mut request = json!({ "command": "true" });
            request[field] = value;
            assert_eq!(refused(request, form), (422, "invalid_request".into(), field.into()));
        }
    }

    #[test]
    fn a_program_has_input_only_if_the_client_can_send_it() {
        let stdin = |request, form| plan(request, form).unwrap().start.stdin;
        assert!(!stdin(json!({ "command": "cat" }), Form::Post));
        assert!(stdin(json!({ "command": "cat", "stdin": "" }), Form::Post));
        assert!(stdin(json!({ "command": "cat" }), Form::WebSocket));
        assert!(!stdin(json!({ "command": "cat", "interactive": false }), Form::WebSocket));
    }

    #[test]
    fn a_plain_agent_gets_the_fields_it_supports_and_the_error_names_the_others() {
        let all = plan(
            json!({ "command": "a", "max_output_bytes": 1, "on_disconnect": "kill" }),
            Form::Post,
        );
        assert_eq!(all.unwrap().limited().plain(false).unwrap().timeout_ms, None);
        let request = json!({ "command": "a", "timeout_ms": 5 });
        let limited = plan(request.clone(), Form::Post).unwrap();
        assert_eq!(limited.plain(true).unwrap().timeout_ms, Some(5));
        let CallError::TooOld { needs, field } = plan(
            json!({ "command": "a", "timeout_ms": 5, "id": "x", "env": { "A": "" } }),
            Form::Post,
        )
        .unwrap()
        .plain(false)
        .unwrap_err() else {
            panic!("not too old")
        };
        assert_eq!(field.as_deref(), Some("timeout_ms"));
        assert_eq!(needs, "`timeout_ms`, `env`, `id` for programs");
    }
}
