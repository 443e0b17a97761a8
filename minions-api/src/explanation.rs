//! Explanation of a VM's configuration: `GET /vms/{vm}/config?explain=true`.

use serde::{Deserialize, Serialize};

/// Explanation of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ConfigExplanation {
    /// Declarations that match the VM, the most specific one first.
    pub declarations: Vec<MatchingDeclaration>,
    /// Fields of these declarations.
    pub fields: Vec<FieldExplanation>,
}

/// A declaration that matches a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MatchingDeclaration {
    /// Name or pattern.
    pub name: String,
    /// Reason of its place among the others, for people.
    #[cfg_attr(
        feature = "openapi",
        schema(example = "a pattern with 4 characters other than wildcards")
    )]
    pub rank: String,
}

/// A field, and all matching declarations that have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FieldExplanation {
    /// Path of the field. `network.pool`, `network.ip` and `network.interfaces` are one field.
    pub field: String,
    /// Declarations that have it. The first one decides.
    pub candidates: Vec<FieldCandidate>,
}

/// A declaration that has a field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FieldCandidate {
    /// Name of the declaration.
    pub from: String,
    /// Value as JSON.
    pub value: String,
}
