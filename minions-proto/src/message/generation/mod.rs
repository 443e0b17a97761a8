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
