//! Init process of a minimal VM (`--init`): no distribution, only the agent.
//!
//! ```text
//!  kernel ─▶ PID 1: mounts, modules, hostname, loopback
//!              ├─▶ agent (a child, restarted whenever it ends) ─▶ programs
//!              └─▶ reaps orphans; on a signal: ends all processes, syncs, unmounts, powers off
//! ```
//!
//! The agent is a child of PID 1, for two reasons. PID 1 must wait for every child, and would take the exit
//! codes that the agent waits for; here programs are children of the agent, and PID 1 only reaps orphans.
//! And when PID 1 ends, the kernel panics; here the end of the agent does not end the guest.
//!
//! The kernel starts PID 1 with `rdinit=/usr/bin/minions-agent -- --init` (initial ramdisk), with
//! `init=… -- --init` (disk), or as a file named `init`, which needs no option.
//!
//! # Layout
//!
//! * [`power`]: signals that request the end of the guest, and the shutdown sequence.
//! * `mounts`, `modules`, `names`: preparations before the agent starts.
//! * `console`: messages on the console.
//! * `reap`: reaping of ended children.
//! * `supervise`: runs the agent, reaps orphans and waits for signals as long as the guest runs.

mod console;
mod modules;
mod mounts;
mod names;
pub mod power;
mod reap;
mod supervise;

use console::{console, report};
use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;

/// Option that selects this mode.
const OPTION: &str = "--init";

/// Reason why this process cannot be a guest's init.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The process is not PID 1.
    #[error("--init is for the first process of a VM (PID 1); this is process {0}")]
    NotFirst(u32),
    /// Signals or the runtime are unavailable.
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
}

/// Returns the agent's options if the command line selects the init mode.
///
/// `line` begins with the program's name. The kernel inserts unknown words of its own command line before
/// the options; they are skipped.
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
/// [`InitError`] before the first step. Later failures are written to the console and do not stop the boot:
/// a guest with an agent but without, for example, control groups is better than no guest.
pub fn run(options: &[OsString]) -> Result<Infallible, InitError> {
    let id = std::process::id();
    if id != 1 {
        return Err(InitError::NotFirst(id));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(InitError::Signals)?;
    // Before all else, so that no signal is lost: the kernel drops signals that PID 1 does not catch.
    let signals = {
        let _inside = runtime.enter();
        power::ShutdownSignals::take().map_err(InitError::Signals)?
    };
    power::no_ctrl_alt_del();
    mounts::mount_all();
    // The OOM killer spares PID 1 of a machine, but not PID 1 of a container.
    report("set oom_score_adj", crate::protection::spare_from_oom_killer());
    modules::insert_all();
    names::set_hostname();
    runtime.block_on(names::set_loopback_up());
    // Tests that watch the console count boots by this line.
    console("up");
    let action = runtime.block_on(supervise::run(options, signals));
    runtime.block_on(power::finish(action))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &[&str]) -> Option<Vec<OsString>> {
        asked(words.iter().map(OsString::from))
    }

    #[test]
    fn words_that_the_kernel_inserts_are_not_options_of_the_agent() {
        let options = line(&["/a", "nokaslr", "single", "--init", "--allow", "health"]).unwrap();
        assert_eq!(options, ["--allow", "health"]);
        assert_eq!(line(&["/a", "--allow", "health"]), None);
        // Named `init`, but not PID 1: an ordinary command line.
        assert_eq!(line(&["/init", "--version"]), None);
    }

    #[test]
    fn a_process_other_than_pid_1_is_refused() {
        assert!(matches!(run(&[]), Err(InitError::NotFirst(id)) if id == std::process::id()));
    }
}
