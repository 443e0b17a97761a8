//! The first process of a tiny VM (`--init`): no distribution, only the agent.
//!
//! ```text
//!  kernel ─▶ PID 1: mounts, modules, hostname, loopback
//!              ├─▶ agent (a child, started again whenever it ends) ─▶ programs
//!              └─▶ reaps orphans; on a signal: ends all, syncs, unmounts, powers off
//! ```
//!
//! The agent is a child, not PID 1 itself. PID 1 must wait for every orphan, and so would take away the
//! exit codes that the agent waits for; here the agent's programs are the agent's children, and only
//! what nobody waits for any more comes to PID 1. Nor does a guest end (the kernel panics) when
//! the agent does.
//!
//! The kernel starts it by `rdinit=/usr/bin/minions-agent -- --init` (initial ramdisk), by
//! `init=… -- --init` (disk), or as a file named `init`, which needs no option.
//!
//! # Layout
//!
//! * [`power`]: which signal asks for what, and the end of everything.
//! * `mounts`, `modules`, `names`: what there must be before the agent starts.
//! * `supervise`: the agent, the orphans and the signals, for as long as the guest runs.

mod modules;
mod mounts;
mod names;
pub mod power;
mod supervise;

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::Path;

/// The option that asks for it.
const OPTION: &str = "--init";

/// What a guest's programs and the agent inherit.
const ENVIRONMENT: [(&str, &str); 3] = [
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", "/root"),
    ("TERM", "linux"),
];

/// Why this process can't be a guest's first one.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// It has another number than 1.
    #[error("--init is for the first process of a VM; this is process {0}")]
    NotFirst(u32),
    /// Signals can't be waited for.
    #[error("can't wait for signals")]
    Signals(#[source] io::Error),
}

/// The agent's own options, if the command line asks for a first process.
///
/// `line` begins with the program's name. The kernel puts words of its own command line that it
/// doesn't know before the options; they are not for us.
#[must_use]
pub fn asked(line: impl IntoIterator<Item = OsString>) -> Option<Vec<OsString>> {
    let mut line = line.into_iter();
    let program = line.next().unwrap_or_default();
    let options: Vec<_> =
        line.skip_while(|word| !word.as_encoded_bytes().starts_with(b"-")).collect();
    let named = Path::new(&program).file_name() == Some(OsStr::new("init"));
    let is_first = std::process::id() == 1;
    let is_asked = options.iter().any(|word| word == OPTION) || (named && is_first);
    is_asked.then(|| options.into_iter().filter(|word| word != OPTION).collect())
}

/// Runs the guest until it powers off. `options` are the agent's.
///
/// # Errors
///
/// [`InitError`], before anything was done. From then on it says on the console what fails, and goes
/// on: a guest with an agent and without, say, a control group is better than none.
pub fn run(options: &[OsString]) -> Result<Infallible, InitError> {
    let id = std::process::id();
    if id != 1 {
        return Err(InitError::NotFirst(id));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(InitError::Signals)?;
    // First of all, so that no signal is lost: the kernel drops those that PID 1 doesn't take.
    let signals = {
        let _inside = runtime.enter();
        power::Signals::take().map_err(InitError::Signals)?
    };
    power::no_ctrl_alt_del();
    mounts::mount_all();
    // The kernel never chooses a machine's first process, but does a container's.
    report("set oom_score_adj", crate::protection::spare_from_oom_killer());
    modules::insert_all();
    names::set_hostname();
    runtime.block_on(names::set_loopback_up());
    // Whoever watches the console counts boots by this line.
    console("up");
    let action = runtime.block_on(supervise::run(options, signals));
    runtime.block_on(power::finish(action))
}

/// Says it on the console, where the kernel speaks too.
fn console(text: impl std::fmt::Display) {
    // Without a console there is nobody to tell.
    let _ = writeln!(io::stderr(), "init: {text}");
}

/// Says what failed, if it did.
fn report<T, E: std::fmt::Display>(what: &str, result: Result<T, E>) -> Option<T> {
    result.inspect_err(|error| console(format_args!("{what}: {error}"))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &[&str]) -> Option<Vec<OsString>> {
        asked(words.iter().map(OsString::from))
    }

    #[test]
    fn what_the_kernel_adds_is_no_option_of_the_agents() {
        let options = line(&["/a", "nokaslr", "single", "--init", "--allow", "health"]).unwrap();
        assert_eq!(options, ["--allow", "health"]);
        assert_eq!(line(&["/a", "--allow", "health"]), None);
        // Named so, but not the first process: as ever.
        assert_eq!(line(&["/init", "--version"]), None);
    }

    #[test]
    fn any_other_process_than_the_first_is_refused() {
        assert!(matches!(run(&[]), Err(InitError::NotFirst(id)) if id == std::process::id()));
    }
}
