//! Prerequisites of a real VM. Every part is cached in the rig directory, so a second run is quick.

mod agent;
mod apt;
mod archive;
pub(crate) mod cargo_tool;
mod debian;
mod editor;
mod initrd;
mod kernel;
mod patch;
mod python;
mod stamp;
mod vsock_backend;

use std::{
    fs,
    path::PathBuf,
    thread::{self, ScopedJoinHandle},
};

use anyhow::{Context, anyhow, ensure};

use crate::{progress::Steps, workspace::Workspace};
use agent::AgentProfile;
use apt::{AptClient, PackageNeed};

/// Number of steps of [`for_vm`].
pub(crate) const VM_STEPS: usize = 5;
/// Number of steps of [`for_tests`].
pub(crate) const TEST_STEPS: usize = VM_STEPS + 3;

/// Number of steps of [`for_bench`].
pub(crate) const BENCH_STEPS: usize = VM_STEPS;

/// Number of steps of [`for_clients`].
pub(crate) const CLIENTS_STEPS: usize = VM_STEPS + 2;

/// Prepares everything that is needed to boot a VM.
pub(crate) fn for_vm(workspace: &Workspace, steps: &mut Steps) -> anyhow::Result<()> {
    prepare(workspace, steps, AgentProfile::Quick, &[])
}

/// Prepares everything that the tests need: a VM, a Debian guest, cargo-deny and the OpenAPI tools.
pub(crate) fn for_tests(workspace: &Workspace, steps: &mut Steps) -> anyhow::Result<()> {
    let needs: Vec<PackageNeed> = [python::NEED].into_iter().chain(apt::TEST_NEEDS).collect();
    let mut apt = packages(workspace, steps, &needs)?;
    let rig = workspace.rig();
    thread::scope(|scope| {
        // Builds side by side: each leaves a processor idle for a part of its time.
        let deny = scope.spawn(|| cargo_tool::CARGO_DENY.ensure(rig));
        vm_parts(workspace, steps, AgentProfile::Quick, &mut apt)?;
        // Downloading and unpacking packages leaves the processors to the compiler.
        let debian = scope.spawn(|| debian::ensure(rig));
        let python = scope.spawn(|| python::ensure(&rig.venv(), python::OPENAPI_TOOLS));
        steps.run("cargo-deny", || joined(deny))?;
        steps.run("Debian guest", || joined(debian))?;
        steps.run("python tools", || joined(python))
    })
}

/// Waits for a step in a thread of its own.
pub(crate) fn joined<T>(step: ScopedJoinHandle<'_, anyhow::Result<T>>) -> anyhow::Result<T> {
    step.join().map_err(|_| anyhow!("the step panicked"))?
}

/// Prepares a VM and the other contenders of the benches.
pub(crate) fn for_bench(workspace: &Workspace, steps: &mut Steps) -> anyhow::Result<()> {
    prepare(workspace, steps, AgentProfile::Packaged, &apt::BENCH_NEEDS)
}

/// Prepares a VM with the agent of the packages, a Debian guest, and the clients. Returns the directory of Ansible's
/// programs.
pub(crate) fn for_clients(workspace: &Workspace, steps: &mut Steps) -> anyhow::Result<PathBuf> {
    let needs: Vec<PackageNeed> = [python::NEED].into_iter().chain(apt::CLIENT_NEEDS).collect();
    prepare(workspace, steps, AgentProfile::Packaged, &needs)?;
    let rig = workspace.rig();
    steps.run("Debian guest", || debian::ensure_for_clients(rig))?;
    let ansible = rig.dir().join("ansible");
    steps.run("Ansible", || python::ensure(&ansible, python::ANSIBLE))?;
    Ok(ansible.join("bin"))
}

fn prepare(
    workspace: &Workspace,
    steps: &mut Steps,
    profile: AgentProfile,
    more: &[PackageNeed],
) -> anyhow::Result<()> {
    let mut apt = packages(workspace, steps, more)?;
    vm_parts(workspace, steps, profile, &mut apt)
}

/// Installs the packages that a VM needs, and `more`: the first of [`VM_STEPS`].
fn packages(
    workspace: &Workspace,
    steps: &mut Steps,
    more: &[PackageNeed],
) -> anyhow::Result<AptClient> {
    ensure!(std::env::consts::ARCH == "x86_64", "the VM rig is for x86-64 hosts only");
    let rig = workspace.rig();
    fs::create_dir_all(rig.dir())
        .with_context(|| format!("cannot create {}", rig.dir().display()))?;
    let mut apt = AptClient::default();
    let needs: Vec<&PackageNeed> = apt::VM_NEEDS.iter().chain(more).collect();
    steps.run("Debian packages", || apt.ensure(&needs))?;
    Ok(apt)
}

/// Prepares the parts of a VM: the other ones of [`VM_STEPS`].
fn vm_parts(
    workspace: &Workspace,
    steps: &mut Steps,
    profile: AgentProfile,
    apt: &mut AptClient,
) -> anyhow::Result<()> {
    let rig = workspace.rig();
    steps.run("guest kernel", || kernel::ensure(rig, apt))?;
    steps.run("vsock backend", || vsock_backend::ensure(rig))?;
    steps.run("static agent", || agent::ensure(workspace, profile))?;
    steps.run("guest image", || initrd::ensure(rig))
}
