//! Manual pages of all programs.
//!
//! minionsctl and minionsd render theirs from their grammars: builds with the feature `man` write them. [`agent`]: the
//! page of minions-agent, which has no grammar to read, from its help.

mod agent;

use std::{
    env, fs,
    path::{Path, absolute},
    process::Command,
};

use anyhow::{Context, bail};
use manual::files;

use crate::{command, progress, workspace::Workspace};

/// Writes the pages to `man1` and `man8` in `directory`.
pub(crate) fn run(workspace: &Workspace, directory: &Path) -> anyhow::Result<()> {
    let directory = absolute(directory)?;
    let date = date(workspace)?;
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    for program in ["minionsctl", "minionsd"] {
        let mut build = workspace.cargo("run");
        build.args(["--quiet", "--package", program, "--features", "man", "--"]);
        command::run(build.arg(files::ARGUMENT).arg(&directory).arg(&date))?;
    }
    let mut help = workspace.cargo("run");
    help.args(["--quiet", "--package", "minions-agent", "--", "--help"]);
    let page = agent::page(&command::run(&mut help)?, &date)?;
    files::write(&directory, &[page])?;
    progress::line(format!("wrote the manual pages to {}", directory.display()));
    Ok(())
}

/// Returns the date of the pages: `SOURCE_DATE_EPOCH`, which builders of packages set, or the date of the last commit.
fn date(workspace: &Workspace) -> anyhow::Result<String> {
    let mut query = match env::var("SOURCE_DATE_EPOCH") {
        Ok(seconds) if seconds.bytes().all(|byte| byte.is_ascii_digit()) => {
            let mut query = Command::new("date");
            query.args(["--utc", "+%Y-%m-%d", "--date"]).arg(format!("@{seconds}"));
            query
        }
        Ok(other) => bail!("SOURCE_DATE_EPOCH is {other:?}: must be a number of seconds"),
        Err(_) => {
            let mut query = Command::new("git");
            query.args(["log", "-1", "--format=%cs"]).current_dir(workspace.root());
            query
        }
    };
    let date = command::run(&mut query)
        .context("the date of the pages is unknown: set SOURCE_DATE_EPOCH to seconds since 1970")?;
    Ok(date.trim().to_owned())
}
