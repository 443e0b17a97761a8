//! `GET /declarations`, and `GET`, `PUT` and `DELETE /declarations/{name}`.

use super::super::audit::AuditNote;
use super::super::extract::{JsonBody, path_parameter};
use super::super::problem::{ApiError, DeclaredProblems, ServiceProblems};
use super::super::state::ApiState;
use super::revision::{ExpectedRevision, tagged};
use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::response::Response;
use minions_api::declaration::{Declaration, DeclarationList, StoredDeclaration};
use minions_declare::{DeclareError, DeclaredState, Target};
use minions_proto::Invalid;

/// Name or pattern in the path.
pub(in super::super) struct DeclarationName(String);

impl FromRequestParts<ApiState> for DeclarationName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &ApiState) -> Result<Self, ApiError> {
        let name = path_parameter(parts, api, "name").await?;
        Target::parse("name", &name).map_err(|invalid| ApiError::invalid(&invalid))?;
        Ok(Self(name))
    }
}

/// List all declarations
///
/// Returns every declaration with its revision, sorted by name, and the revision of the declared state.
#[utoipa::path(
    get, path = "/declarations", operation_id = "list_declarations", tag = "declared",
    responses((status = 200, description = "All declarations, sorted by name", body = DeclarationList), ServiceProblems),
)]
pub(in super::super) async fn list_declarations(
    State(api): State<ApiState>,
) -> Json<DeclarationList> {
    let (declarations, revision) = api.declared.read(|state| {
        let all = state.declarations().iter();
        (all.map(|stored| shown(stored)).collect(), state.revision())
    });
    Json(DeclarationList { declarations, revision, persistent: api.declared.is_persistent() })
}

fn shown(stored: &minions_declare::declaration_set::StoredDeclaration) -> StoredDeclaration {
    StoredDeclaration { declaration: stored.declaration.clone(), revision: stored.revision }
}

fn find(state: &DeclaredState, name: &str) -> Result<StoredDeclaration, DeclareError> {
    let found = state.declarations().get(name).map(|stored| shown(stored));
    found.ok_or_else(|| DeclareError::NoDeclaration(name.to_owned()))
}

/// Get a declaration
///
/// The `ETag` has its revision.
#[utoipa::path(
    get, path = "/declarations/{name}", operation_id = "get_declaration", tag = "declared",
    params(("name" = String, Path, description = "Name or pattern of the declaration")),
    responses((status = 200, description = "The declaration", body = StoredDeclaration), DeclaredProblems),
)]
pub(in super::super) async fn get_declaration(
    State(api): State<ApiState>,
    DeclarationName(name): DeclarationName,
) -> Result<Response, ApiError> {
    let stored = api.declared.read(|state| find(state, &name)).map_err(ApiError::declare)?;
    Ok(tagged(stored.revision, stored))
}

/// Create or replace a declaration
///
/// The VMs that match are configured by themselves, when they are ready. A repeated request changes nothing, not even
/// the revision.
#[utoipa::path(
    put, path = "/declarations/{name}", operation_id = "put_declaration", tag = "declared",
    params(
        ("name" = String, Path, description = "Name of a VM, or a pattern with `*` and `?`"),
        ("If-Match" = Option<String>, Header, description = "ETag that the declaration must have; `*`: it must exist"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: the declaration must not exist"),
    ),
    request_body = Declaration,
    responses((status = 200, description = "Declaration stored", body = StoredDeclaration), DeclaredProblems),
)]
pub(in super::super) async fn put_declaration(
    State(api): State<ApiState>,
    DeclarationName(name): DeclarationName,
    ExpectedRevision(expected): ExpectedRevision,
    note: AuditNote,
    JsonBody(mut declaration): JsonBody<Declaration>,
) -> Result<Response, ApiError> {
    if declaration.name.is_empty() {
        declaration.name.clone_from(&name);
    }
    if declaration.name != name {
        let reason = format!("must be that of the path, {name:?}, or left out");
        let invalid = Invalid::value("name", &declaration.name, &reason);
        return Err(ApiError::invalid(&invalid));
    }
    note.subject(&name).await?;
    let plan = move |state: &DeclaredState| {
        let plan = state.plan_put_declaration(declaration, expected)?;
        let changed = !plan.changes.is_empty();
        Ok((plan, changed))
    };
    let read = move |changed, state: &DeclaredState| find(state, &name).map(|one| (one, changed));
    let stored = api.declared.change_and_read(plan, read).await.map_err(ApiError::store)?;
    let (stored, changed) = stored.map_err(ApiError::declare)?;
    note.outcome(|| if changed { "changed" } else { "unchanged" }.to_owned());
    Ok(tagged(stored.revision, stored))
}

/// Remove a declaration
///
/// VMs keep the settings that they have. Returns the declaration as it was.
#[utoipa::path(
    delete, path = "/declarations/{name}", operation_id = "delete_declaration", tag = "declared",
    params(
        ("name" = String, Path, description = "Name or pattern of the declaration"),
        ("If-Match" = Option<String>, Header, description = "ETag that the declaration must have"),
    ),
    responses((status = 200, description = "Declaration removed", body = StoredDeclaration), DeclaredProblems),
)]
pub(in super::super) async fn delete_declaration(
    State(api): State<ApiState>,
    DeclarationName(name): DeclarationName,
    ExpectedRevision(expected): ExpectedRevision,
    note: AuditNote,
) -> Result<Json<StoredDeclaration>, ApiError> {
    note.subject(&name).await?;
    let plan = move |state: &DeclaredState| {
        let plan = state.plan_remove_declaration(&name, expected)?;
        Ok((plan, find(state, &name)?))
    };
    api.declared.change(plan).await.map(Json).map_err(ApiError::store)
}
