//! The programs that this project is compared with.

pub(crate) mod nginx;
pub(crate) mod qemu_ga;
pub(crate) mod socat;
pub(crate) mod ssh;
