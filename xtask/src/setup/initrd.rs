//! The guest image: an initial ramdisk with busybox, the kernel's modules and the agent.

use std::{
    fs::{self, File},
    io::BufWriter,
    path::Path,
    process::Command,
};

use anyhow::Context;
use testkit::rig::{GUEST_MODULES, Layout};

use super::{archive::CpioArchive, editor, stamp::InputStamp};
use crate::{command, progress::Outcome};

/// First process of the guest.
const INIT: &str = include_str!("guest-init.sh");

/// Users of the guest; alice is an ordinary user to run commands as.
const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/bin/false
alice:x:1000:1000:Alice:/home/alice:/bin/sh
";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\nalice:x:1000:\nstaff:x:50:alice\n";

/// Path at which Debian's busybox-static installs its program.
pub(super) const BUSYBOX: &str = "/bin/busybox";

/// All parts of the guest that come from outside of this crate.
#[derive(Debug, Hash)]
struct GuestInputs {
    busybox: Vec<u8>,
    /// Paths of the applets, for example `usr/bin/env`.
    applets: String,
    agent: Vec<u8>,
    probe: Vec<u8>,
    editor: Vec<(String, Vec<u8>)>,
    modules: Vec<(&'static str, Vec<u8>)>,
}

/// Builds the image unless it was built from the same inputs.
pub(crate) fn ensure(rig: &Layout) -> anyhow::Result<Outcome> {
    let inputs = GuestInputs::read(rig)?;
    let archive = inputs.archive();
    let image = rig.initrd();
    let stamp = InputStamp::of(rig.dir().join("initrd.stamp"), &(&inputs, INIT, PASSWD, GROUP));
    if stamp.is_fresh(&image) {
        return Ok(Outcome::Cached);
    }
    let plain = image.with_extension("");
    let out = File::create(&plain).with_context(|| format!("cannot create {}", plain.display()))?;
    archive.write(BufWriter::new(out)).context("cannot write the guest image")?;
    // gzip replaces the uncompressed file with `initrd.gz`.
    command::run(Command::new("gzip").args(["--force", "--no-name"]).arg(&plain))?;
    stamp.write().context("cannot write the stamp of the guest image")?;
    Ok(Outcome::done("packed"))
}

impl GuestInputs {
    fn read(rig: &Layout) -> anyhow::Result<Self> {
        let read =
            |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        let modules = GUEST_MODULES
            .iter()
            .map(|name| Ok((*name, read(&rig.module(name))?)))
            .collect::<anyhow::Result<_>>()?;
        Ok(Self {
            busybox: read(Path::new(BUSYBOX))?,
            applets: command::run(Command::new(BUSYBOX).arg("--list-full"))?,
            agent: read(&rig.agent())?,
            probe: read(&rig.probe())?,
            editor: editor::files()?,
            modules,
        })
    }

    fn archive(&self) -> CpioArchive {
        let mut archive = CpioArchive::default();
        for mount_point in ["dev", "proc", "sys", "run", "etc"] {
            archive.directory(mount_point, 0o755);
        }
        archive.directory("tmp", 0o1777);
        archive.directory("root", 0o700);
        archive.home("home/alice", 1000);
        archive.file("etc/passwd", 0o644, PASSWD);
        archive.file("etc/group", 0o644, GROUP);
        archive.file("init", 0o755, INIT);
        for applet in self.applets.lines() {
            archive.symlink(applet, BUSYBOX);
        }
        archive.file("bin/busybox", 0o755, &*self.busybox);
        archive.file("usr/bin/minions-agent", 0o755, &*self.agent);
        archive.file("usr/bin/vsock-probe", 0o755, &*self.probe);
        for (path, content) in &self.editor {
            archive.file(path, 0o755, &**content);
        }
        let mut order = String::new();
        for (name, content) in &self.modules {
            let path = format!("lib/modules/{name}.ko");
            order += &format!("/{path}\n");
            archive.file(&path, 0o644, &**content);
        }
        archive.file("lib/modules/order", 0o644, order);
        archive
    }
}
