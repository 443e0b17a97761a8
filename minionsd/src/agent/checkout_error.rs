//! Failure to get a connection from the pool.

use super::gate::Barred;
use minions_api::vm::Failure;

/// Failure to get a connection from the pool.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckoutError {
    /// Too many calls are in flight or waiting.
    #[error("all connections to this VM are in use")]
    Exhausted,
    /// The caller's deadline passed during the wait.
    #[error("deadline passed while waiting for a connection")]
    TimedOut,
    /// A new connection cannot be established.
    #[error("{message}")]
    Connect {
        /// Layer that failed.
        failure: Failure,
        /// Description of the failure for people.
        message: String,
    },
    /// The call needs a new or a tested connection, and the gate does not let it pass.
    #[error("the VM must not be dialled")]
    Barred(Barred),
}
