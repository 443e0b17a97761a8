//! Small root file systems, and runs of the script on them.

use crate::script;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// User and group without rights on this machine.
const NOBODY: u32 = 65534;

/// Network configuration left by the image build; the script removes it.
pub(crate) const LEFT: [&str; 3] = [
    "etc/systemd/network/10-vm.network",
    "etc/systemd/system/vm-network.service",
    "etc/systemd/system/multi-user.target.wants/vm-network.service",
];

/// Files that the script installs in an image with systemd.
pub(crate) const PUT: [&str; 5] = [
    "usr/local/bin/minions-agent",
    "etc/systemd/system/minions-agent.service",
    "etc/systemd/system/minions-agent.socket",
    "etc/systemd/system/sysinit.target.wants/minions-agent.service",
    "etc/systemd/system/sysinit.target.wants/minions-agent.socket",
];

/// Directory with a root file system, an agent, and room for images of it.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) dir: TempDir,
}

impl Scene {
    /// Creates a file system like Debian's: merged /usr, systemd, and a static network.
    pub(crate) fn systemd() -> Self {
        let scene = Self::bare();
        scene.program("usr/lib/systemd/systemd");
        for name in LEFT {
            scene.file(name, "left\n");
        }
        let wanted = scene.root().join(LEFT[2]);
        fs::remove_file(&wanted).unwrap();
        symlink("/etc/systemd/system/vm-network.service", wanted).unwrap();
        scene
    }

    /// Creates a file system with merged /usr and a shell.
    pub(crate) fn bare() -> Self {
        let scene = Self { dir: tempfile::tempdir().unwrap() };
        for directory in ["usr/bin", "usr/sbin", "usr/lib", "usr/local/bin", "etc", "var/lib"] {
            fs::create_dir_all(scene.root().join(directory)).unwrap();
        }
        for link in ["bin", "sbin", "lib"] {
            symlink(format!("usr/{link}"), scene.root().join(link)).unwrap();
        }
        scene.program("usr/bin/sh");
        fs::copy("/bin/true", scene.agent()).unwrap();
        scene
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    pub(crate) fn agent(&self) -> PathBuf {
        self.dir.path().join("agent")
    }

    pub(crate) fn file(&self, name: &str, content: &str) {
        let path = self.root().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(crate) fn program(&self, name: &str) {
        let path = self.root().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy("/bin/true", path).unwrap();
    }

    /// Creates an ext4 image of the root file system, with `size` in the syntax of mke2fs.
    pub(crate) fn image(&self, size: &str) -> PathBuf {
        let image = self.dir.path().join("disk.ext4");
        sh(
            "mke2fs -q -t ext4 -m 0 -d \"$0\" \"$1\" \"$2\"",
            &[&self.root(), &image, Path::new(size)],
        );
        image
    }

    pub(crate) fn tarball(&self, packer: &str) -> PathBuf {
        let tarball = self.dir.path().join("root.tar");
        let pack =
            "tar --numeric-owner --owner=0 --group=0 -C \"$0\" -cf - . | eval \"$2\" >\"$1\"";
        sh(pack, &[&self.root(), &tarball, Path::new(packer)]);
        tarball
    }

    /// Runs the script as an unprivileged user, who becomes the owner of all files of the scene.
    pub(crate) fn as_nobody(&self, args: &[&str], target: &Path) -> Ran {
        let kit = self.dir.path().join("kit");
        if !kit.exists() {
            sh("cp -r \"$0\" \"$1\"", &[script().parent().unwrap(), &kit]);
        }
        sh("chown -R --no-dereference 65534:65534 \"$0\"", &[self.dir.path()]);
        let mut command = Command::new("setpriv");
        let id = NOBODY.to_string();
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"]);
        command.arg(kit.join("install-agent"));
        Ran::of(self.arguments(&mut command, args, target))
    }

    pub(crate) fn install(&self, args: &[&str], target: &Path) -> Ran {
        Ran::of(self.arguments(&mut Command::new(script()), args, target))
    }

    fn arguments<'a>(
        &self,
        command: &'a mut Command,
        args: &[&str],
        target: &Path,
    ) -> &'a mut Command {
        command.arg("--agent").arg(self.agent()).args(args).arg(target)
    }

    /// Asserts that no temporary files are left.
    #[track_caller]
    pub(crate) fn assert_tidy(&self) {
        let names = fs::read_dir(self.dir.path()).unwrap().flatten();
        let hidden = names.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"."));
        assert_eq!(hidden.count(), 0);
    }
}

/// Result of a run of the script.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) stderr: String,
}

impl Ran {
    fn of(command: &mut Command) -> Self {
        let Output { status, stdout, stderr } = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: status.code(), out: text(stdout), stderr: text(stderr) }
    }

    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    #[track_caller]
    pub(crate) fn refused(&self, code: i32, words: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.stderr.contains(words), "{self:?}");
    }
}

/// Runs a shell script with arguments from `$0` on, and returns its output.
#[track_caller]
pub(crate) fn sh(script: &str, args: &[&Path]) -> String {
    let output = Command::new("sh").args(["-ec", script]).args(args).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Lists every name below a directory with mode, owner and link target, and the checksums of all files.
pub(crate) fn listing(root: &Path) -> String {
    let find = "cd \"$0\"; find . -printf '%p %M %U:%G %l\\n' | sort; \
        find . -type f -exec sha256sum {} + | sort";
    sh(find, &[root])
}

pub(crate) fn make_executable(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
