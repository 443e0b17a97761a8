//! Generations of a guest (feature `generations`): a guest that was restored from a snapshot, or
//! cloned, is the next generation of the guest that was saved.
//!
//! ```text
//!  host                                        agent
//!   │ health_check {vmm_token: A}                │ first token: remembered
//!   │ ──────────────────────────────────────────▶│
//!   │                         … saved, restored under another VMM …
//!   │ health_check {vmm_token: B}                │ token never seen: calls are refused
//!   │ ◀────────────────── agent.restore: required│
//!   │ restore {parent, instance_id, entropy, …}  │ next generation, steps
//!   │ ◀──────────── state: done, generation, steps│ calls are answered again
//! ```

mod probe;
mod restore;
mod vmm_token;

pub use probe::TokenCheck;
pub use restore::{
    EntropyBytes, MAX_HOOK_TIMEOUT_MS, RestoreOutcome, RestoreRequest, RestoreState, RestoreStep,
    RestoreStepKind,
};
pub use vmm_token::VmmToken;

use crate::error::Invalid;

/// Longest token, and longest id of an instance in a request, in bytes.
const MAX_LEN: usize = 64;

/// Checks a token or an id, which is opaque, but appears in logs.
fn check_printable(field: &str, text: &str) -> Result<(), Invalid> {
    let is_printable = text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_printable && (1..=MAX_LEN).contains(&text.len()) {
        return Ok(());
    }
    Err(Invalid::new(field, "must be 1 to 64 printable ASCII characters without spaces"))
}
