//! Programs from PyPI, each set in a virtual environment of its own.

use std::{path::Path, process::Command};

use anyhow::{Context, bail};

use super::{apt::PackageNeed, stamp::InputStamp};
use crate::{command, progress::Outcome};

/// All packages of the OpenAPI tools with their exact versions; the first lines are the tools that the tests run.
pub(super) const OPENAPI_TOOLS: &str = include_str!("python-requirements.txt");

/// Ansible with all that it needs, in exact versions.
pub(super) const ANSIBLE: &str = include_str!("ansible-requirements.txt");

/// Python that can create a virtual environment.
pub(crate) const NEED: PackageNeed =
    PackageNeed { package: "python3-venv", is_met: || interpreter().is_some() };

/// Candidates in order: the first in `PATH` may be managed by the user, the second is Debian's.
const INTERPRETERS: [&str; 2] = ["python3", "/usr/bin/python3"];

/// Installs the packages of a list unless exactly these versions are installed.
pub(super) fn ensure(venv: &Path, requirements: &str) -> anyhow::Result<Outcome> {
    let Some(python) = interpreter() else {
        bail!(
            "no Python interpreter can create a virtual environment (tried python3 and /usr/bin/python3)"
        );
    };
    let version = command::run(Command::new(python).arg("--version"))?;
    let stamp = InputStamp::of(venv.join("minions.stamp"), &(requirements, version));
    if stamp.is_fresh(&venv.join("bin/python")) {
        return Ok(Outcome::Cached);
    }
    command::run(Command::new(python).args(["-m", "venv", "--clear"]).arg(venv))?;
    let list = venv.join("requirements.txt");
    std::fs::write(&list, requirements)
        .with_context(|| format!("cannot write {}", list.display()))?;
    let mut install = Command::new(venv.join("bin/python"));
    install.args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(&list);
    command::run(&mut install)?;
    stamp.write().context("cannot write the stamp of the Python tools")?;
    Ok(Outcome::done("installed"))
}

fn interpreter() -> Option<&'static str> {
    let can_make_venv = |python: &&str| {
        command::run(Command::new(python).args(["-c", "import ensurepip, venv"])).is_ok()
    };
    INTERPRETERS.into_iter().find(can_make_venv)
}
