//! `health_check` with a token.

use super::VmmToken;
use crate::message::call::Call;
use crate::message::health::{Health, HealthCheck};
use serde::{Deserialize, Serialize};

/// Health check that tells the agent the VMM through which it arrives. Only for agents with the
/// feature `generations`; a base agent ignores the token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenCheck {
    /// Token of the VMM.
    pub vmm_token: VmmToken,
}

impl Call for TokenCheck {
    type Reply = Health;
    const TYPE: &'static str = HealthCheck::TYPE;
    const IDEMPOTENT: bool = true;
}
