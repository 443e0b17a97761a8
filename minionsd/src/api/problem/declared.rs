//! Conversion of refusals of the declared state to problems.

use super::api_error::ApiError;
use crate::declared::StoreError;
use crate::reconcile::NotApplied;
use minions_api::{ErrorCode, Problem, VmName};
use minions_declare::DeclareError;

impl ApiError {
    /// Converts the failure to change the declared state.
    pub(in super::super) fn store(error: StoreError) -> Self {
        let may_have_executed = error.may_have_executed();
        let code = match error {
            StoreError::Refused(error) => return Self::declare(error),
            StoreError::Unwritable(_)
            | StoreError::Slow { .. }
            | StoreError::WriterEnded { .. } => ErrorCode::StateUnavailable,
            StoreError::PlanPanicked => ErrorCode::Internal,
            StoreError::Stopped => return Self::shutting_down(),
        };
        let mut problem = Problem::new(code, error.to_string());
        problem.may_have_executed = may_have_executed;
        Self::from_problem(problem)
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
    pub(in super::super) fn not_applied(vm: &VmName, error: NotApplied) -> Self {
        let code = match error {
            NotApplied::NothingDeclared => ErrorCode::DeclarationNotFound,
            NotApplied::Gone => return Self::vm_not_found(vm.clone()),
            NotApplied::Replaced => ErrorCode::VmReplaced,
            NotApplied::TimedOut => ErrorCode::AgentTimeout,
            NotApplied::Stopping => ErrorCode::ShuttingDown,
        };
        let mut problem = Problem::new(code, error.to_string());
        problem.may_have_executed = error == NotApplied::TimedOut;
        Self::from_problem(problem).about(vm.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_may_still_be_made_says_so() {
        for (error, may_have_executed) in [
            (StoreError::Slow { queued: true }, true),
            (StoreError::Slow { queued: false }, false),
            (StoreError::WriterEnded { queued: true }, true),
            (StoreError::Unwritable("disk full".into()), false),
        ] {
            let problem = ApiError::store(error).into_problem("id");
            assert_eq!(problem.code, ErrorCode::StateUnavailable);
            assert_eq!(problem.may_have_executed, may_have_executed, "{}", problem.detail);
        }
    }
}
