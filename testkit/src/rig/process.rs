//! A child process that cannot outlive this process.

use std::{
    fs::{self, File},
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{OnceLock, mpsc},
    thread,
};

use super::error::RigError;

/// Number of lines of a program's output that an error shows.
const TAIL_LINES: usize = 20;

/// Running program whose output goes to a log file. Killed and reaped when dropped.
#[derive(Debug)]
pub(crate) struct ChildProcess {
    program: &'static str,
    child: Child,
    log: PathBuf,
}

impl ChildProcess {
    /// Starts `command` through `setpriv --pdeathsig KILL`, which executes the program in its own place, so
    /// the child's pid is the program's.
    ///
    /// The program leads a new process group: a Ctrl-C at the terminal reaches only this process, which ends
    /// its VMs in order.
    pub(crate) fn spawn(
        program: &'static str,
        setpriv: &Path,
        command: &Command,
        log: PathBuf,
    ) -> Result<Self, RigError> {
        let out = File::create(&log).map_err(RigError::io("create", &log))?;
        let err = out.try_clone().map_err(RigError::io("open", &log))?;
        let mut guarded = Command::new(setpriv);
        guarded
            .args(["--pdeathsig", "KILL", "--"])
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0);
        let child =
            spawn_on_launcher(guarded).map_err(|source| RigError::Spawn { program, source })?;
        Ok(Self { program, child, log })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns an error with the end of the program's output if the program has ended.
    pub(crate) fn check_running(&mut self) -> Result<(), RigError> {
        match self.child.try_wait() {
            Ok(Some(status)) => Err(RigError::Ended {
                program: self.program,
                status,
                log: tail(&read_lossy(&self.log)),
            }),
            Ok(None) | Err(_) => Ok(()),
        }
    }

    /// Kills the program with SIGKILL and reaps it. Has no effect on a program that has ended already.
    pub(crate) fn kill(&mut self) {
        // Both fail only for a child that was reaped before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns the last lines of `text`.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// Returns the contents of the file as text; empty if it does not exist (yet).
pub(crate) fn read_lossy(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

type Reply = mpsc::SyncSender<io::Result<Child>>;

/// Spawns the command on a thread that lives as long as the process: the kernel sends the parent-death signal
/// when the *thread* that spawned a child ends, and test threads end early.
fn spawn_on_launcher(command: Command) -> io::Result<Child> {
    static LAUNCHER: OnceLock<mpsc::SyncSender<(Command, Reply)>> = OnceLock::new();
    let launcher = LAUNCHER.get_or_init(|| {
        let (sender, receiver) = mpsc::sync_channel::<(Command, Reply)>(0);
        thread::spawn(move || {
            for (mut command, reply) in receiver {
                // Fails only if the requesting thread has panicked.
                let _ = reply.send(command.spawn());
            }
        });
        sender
    });
    let gone = || io::Error::other("the launcher thread is gone");
    let (reply, answer) = mpsc::sync_channel(1);
    launcher.send((command, reply)).map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}
