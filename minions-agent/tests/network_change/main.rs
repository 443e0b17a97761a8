//! The extended network configuration (feature `network2`) on a real kernel.
#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

mod asked;
mod confirmation;
mod failure;
mod guest;
mod interfaces;
mod restored;
#[path = "../support/mod.rs"]
mod support;
mod verified;
