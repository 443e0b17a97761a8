//! Conversion of refusals of the declared state to problems.

use super::api_error::ApiError;
use crate::declared::StoreError;
use crate::reconcile::NotApplied;
use minions_api::ErrorCode;
use minions_declare::DeclareError;

impl ApiError {
    /// Converts the failure to change the declared state.
    pub(in super::super) fn store(error: StoreError) -> Self {
        match error {
            StoreError::Refused(error) => Self::declare(error),
            StoreError::Unwritable(_) | StoreError::Slow => {
                Self::of(ErrorCode::StateUnavailable, error.to_string())
            }
            StoreError::Stopped => Self::shutting_down(),
        }
    }

    /// Converts a refusal of a request about the declared state.
    pub(in super::super) fn declare(error: DeclareError) -> Self {
        let code = match &error {
            DeclareError::Invalid(invalid) => return Self::invalid(invalid),
            DeclareError::NoDeclaration(_) => ErrorCode::DeclarationNotFound,
            DeclareError::NoPool(_) => ErrorCode::PoolNotFound,
            DeclareError::NoLease { .. } => ErrorCode::LeaseNotFound,
            DeclareError::RevisionChanged { .. } => ErrorCode::RevisionChanged,
            DeclareError::PoolConflict(_) => ErrorCode::PoolConflict,
            DeclareError::AddressConflict { .. } => ErrorCode::AddressConflict,
            DeclareError::Exhausted { .. } => ErrorCode::PoolExhausted,
        };
        Self::of(code, error.to_string())
    }

    /// Converts the failure to apply a configuration on request.
    pub(in super::super) fn not_applied(error: NotApplied) -> Self {
        match error {
            NotApplied::NothingDeclared => {
                Self::of(ErrorCode::DeclarationNotFound, error.to_string())
            }
            NotApplied::TimedOut => {
                let mut problem =
                    minions_api::Problem::new(ErrorCode::AgentTimeout, error.to_string());
                problem.may_have_executed = true;
                Self::from_problem(problem)
            }
            NotApplied::Stopping => Self::shutting_down(),
        }
    }
}
