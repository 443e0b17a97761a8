//! The guest's kernel and its modules, extracted from Debian's package without installing it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Context;
use testkit::rig::{DISK_MODULES, GUEST_MODULES, Layout};

use super::apt::AptClient;
use crate::{
    command::{self, CommandError},
    progress::Outcome,
};

/// Empty package that depends on the newest kernel for virtual machines.
const META_PACKAGE: &str = "linux-image-cloud-amd64";

/// Failure to provide the kernel.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KernelError {
    #[error("apt knows no kernel package that {META_PACKAGE} depends on")]
    NoPackage,
    #[error("{package} does not contain {what}")]
    NotInPackage { package: String, what: String },
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Downloads the kernel unless it is cached.
pub(crate) fn ensure(rig: &Layout, apt: &mut AptClient) -> anyhow::Result<Outcome> {
    let mut parts = modules().map(|name| rig.module(name)).chain([rig.kernel(), rig.module_tree()]);
    if parts.all(|part| part.exists()) {
        return Ok(Outcome::Cached);
    }
    let scratch = tempfile::tempdir_in(rig.dir()).context("cannot create a scratch directory")?;
    let package = download(apt, scratch.path())?;
    let unpacked = unpack(scratch.path(), &package)?;
    install(rig, &unpacked, &package)?;
    Ok(Outcome::done(format!("{package} unpacked")))
}

/// Downloads the kernel package. Outdated lists name packages that the archive no longer has, so a failure is
/// followed by a refresh and one more attempt.
fn download(apt: &mut AptClient, dir: &Path) -> Result<String, KernelError> {
    if let Ok(package) = resolve()
        && apt.download(&package, dir).is_ok()
    {
        return Ok(package);
    }
    apt.refresh_lists()?;
    let package = resolve()?;
    apt.download(&package, dir)?;
    Ok(package)
}

/// Returns the name of the concrete package, for example `linux-image-6.1.0-48-cloud-amd64`.
fn resolve() -> Result<String, KernelError> {
    let apt_output = command::run(Command::new("apt-cache").args(["depends", META_PACKAGE]))?;
    dependency(&apt_output).map(str::to_owned).ok_or(KernelError::NoPackage)
}

fn dependency(apt_cache: &str) -> Option<&str> {
    let mut packages = apt_cache.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    packages.find(|package| package.starts_with("linux-image-"))
}

fn unpack(dir: &Path, package: &str) -> Result<PathBuf, KernelError> {
    let is_package = |path: &Path| path.extension().is_some_and(|extension| extension == "deb");
    let file = find(dir, &is_package)?.ok_or_else(|| not_in(package, "a package file"))?;
    let unpacked = dir.join("unpacked");
    command::run(Command::new("dpkg").arg("-x").arg(file).arg(&unpacked))?;
    Ok(unpacked)
}

fn install(rig: &Layout, unpacked: &Path, package: &str) -> Result<(), KernelError> {
    let is_kernel = |path: &Path| file_name(path).starts_with("vmlinuz-");
    let kernel = find(unpacked, &is_kernel)?.ok_or_else(|| not_in(package, "vmlinuz"))?;
    for module in modules() {
        let target = rig.module(module);
        if let Some(dir) = target.parent() {
            fs::create_dir_all(dir)?;
        }
        let plain = format!("{module}.ko");
        let packed = format!("{module}.ko.xz");
        let is_module = |path: &Path| [&*plain, &*packed].contains(&file_name(path));
        let source = find(unpacked, &is_module)?.ok_or_else(|| not_in(package, &plain))?;
        copy_unpacked(&source, &target)?;
        keep_in_tree(rig, unpacked, &source)?;
    }
    let is_list = |path: &Path| file_name(path) == "modules.builtin";
    let list = find(unpacked, &is_list)?.ok_or_else(|| not_in(package, "modules.builtin"))?;
    for name in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
        keep_in_tree(rig, unpacked, &list.with_file_name(name))?;
    }
    fs::copy(kernel, rig.kernel())?;
    Ok(())
}

/// Lists the modules of all guests, each once.
fn modules() -> impl Iterator<Item = &'static str> {
    let more = DISK_MODULES.into_iter().filter(|name| !GUEST_MODULES.contains(name));
    GUEST_MODULES.into_iter().chain(more)
}

/// Copies a file to its place in the module tree, for a guest that loads modules itself.
fn keep_in_tree(rig: &Layout, unpacked: &Path, source: &Path) -> Result<(), KernelError> {
    let Ok(place) = source.strip_prefix(unpacked) else { return Ok(()) };
    let target = rig.module_tree().join(place);
    if let Some(dir) = target.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::copy(source, target)?;
    Ok(())
}

/// Copies a module, decompressed if necessary: the guest's insmod does not load compressed modules.
fn copy_unpacked(source: &Path, target: &Path) -> Result<(), KernelError> {
    if source.extension().is_some_and(|extension| extension == "xz") {
        let out = Stdio::from(fs::File::create(target)?);
        let status = Command::new("xz").arg("-dc").arg(source).stdout(out).status()?;
        if !status.success() {
            return Err(io::Error::other(format!("xz -dc {}: {status}", source.display())).into());
        }
        return Ok(());
    }
    fs::copy(source, target)?;
    Ok(())
}

/// Returns the first file below `dir` for which `wanted` holds.
fn find(dir: &Path, wanted: &dyn Fn(&Path) -> bool) -> io::Result<Option<PathBuf>> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if let Some(found) = find(&path, wanted)? {
                return Ok(Some(found));
            }
        } else if wanted(&path) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

fn not_in(package: &str, what: &str) -> KernelError {
    KernelError::NotInPackage { package: package.to_owned(), what: what.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_concrete_package_is_the_dependency_of_the_meta_package() {
        let apt_output = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-48-cloud-amd64\n";
        assert_eq!(dependency(apt_output), Some("linux-image-6.1.0-48-cloud-amd64"));
        assert_eq!(dependency("W: unknown\n"), None);
    }

    #[test]
    fn a_compressed_module_is_decompressed() {
        let dir = tempfile::tempdir().unwrap();
        let plain = dir.path().join("vsock.ko");
        fs::write(&plain, "module").unwrap();
        command::run(Command::new("xz").arg(&plain)).unwrap();
        let target = dir.path().join("out.ko");
        copy_unpacked(&dir.path().join("vsock.ko.xz"), &target).unwrap();
        assert_eq!(fs::read_to_string(target).unwrap(), "module");
    }
}
