//! Programs in a guest, with the real minionsctl, minionsd and agent, but without a VM.

mod bytes;
pub(crate) mod guest;
mod impossible;
mod many;
mod objects;
mod outcomes;
pub(crate) mod restarts;
mod terminal;
mod words;
