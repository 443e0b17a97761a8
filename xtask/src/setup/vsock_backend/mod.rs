//! vhost-device-vsock, which provides the hybrid-vsock socket for QEMU: built from its published source with
//! a few edits, because unchanged it ends or hangs under the faults that the tests inject.

mod edits;

use anyhow::Context;
use testkit::rig::Layout;

use super::{cargo_tool::Tool, edit, stamp::Stamp};
use crate::progress::Outcome;
use edits::EDITS;

const TOOL: Tool = Tool { name: "vhost-device-vsock", version: "0.3.0", profile: "release" };

/// Builds the backend unless it was built from this version with these edits.
pub(crate) fn ensure(rig: &Layout) -> anyhow::Result<Outcome> {
    let stamp = Stamp::of(rig.tools().join("vhost-device-vsock.stamp"), &(TOOL, EDITS));
    if stamp.is_fresh(&TOOL.program(rig)) {
        return Ok(Outcome::Cached);
    }
    let scratch = tempfile::tempdir_in(rig.dir()).context("cannot create a scratch directory")?;
    let package = TOOL.source(scratch.path())?;
    edit::apply(&package, EDITS)?;
    TOOL.install(rig, &["--path".as_ref(), package.as_os_str()])?;
    stamp.write().context("cannot write the stamp of the vsock backend")?;
    Ok(Outcome::done(format!("built with {} edits", EDITS.len())))
}
