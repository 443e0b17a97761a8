//! The header `If-Incarnation`: a call only reaches the incarnation of the VM that it names.

use super::problem::ApiError;
use crate::agent::IncarnationId;
use axum::http::HeaderMap;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};

/// Name of the header.
pub(super) const HEADER: &str = "If-Incarnation";

/// Longest value.
const MAX_LEN: usize = 128;

/// Returns the incarnation that the call must reach; `None` without the header.
///
/// # Errors
///
/// A malformed value, because ignoring it could change another VM than intended.
pub(super) fn of(headers: &HeaderMap) -> Result<Option<IncarnationId>, ApiError> {
    let malformed = |reason: &str| {
        let detail = format!("`{HEADER}` {reason}: use `incarnation.id` of GET /vms/VM");
        ApiError::malformed(Some(HEADER.to_owned()), detail)
    };
    let mut values = headers.get_all(HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(malformed("is given more than once"));
    }
    match value.to_str() {
        Ok(id) if (1..=MAX_LEN).contains(&id.len()) => {
            Ok(Some(IncarnationId::given(id.to_owned())))
        }
        _ => Err(malformed("is not a text of 1 to 128 visible ASCII characters")),
    }
}

/// Refuses the header on a route that does not call the agent of one VM.
pub(super) fn refuse(headers: &HeaderMap) -> Result<(), ApiError> {
    match of(headers)? {
        None => Ok(()),
        Some(_) => Err(ApiError::malformed(
            Some(HEADER.to_owned()),
            format!("`{HEADER}` applies to calls of one VM: leave it out for many"),
        )),
    }
}

/// Adds the header to the documentation of an operation.
pub(super) fn document(operation: &mut Operation) {
    operation.parameters.get_or_insert_default().push(parameter().into());
}

fn parameter() -> Parameter {
    let text = ObjectBuilder::new().schema_type(Type::String).max_length(Some(MAX_LEN));
    ParameterBuilder::new()
        .name(HEADER)
        .parameter_in(ParameterIn::Header)
        .description(Some(
            "`incarnation.id` of the VM: if another boot or another instance of the agent answers, nothing is executed, \
             and the problem is `vm_replaced`",
        ))
        .schema(Some(text.build()))
        .build()
}
