//! A child process that cannot outlive us.

use std::{
    fs::{self, File},
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{OnceLock, mpsc},
    thread,
};

use super::RigError;

/// How much of a program's output an error shows, in lines.
const TAIL_LINES: usize = 20;

/// A running program with its output in a log file. Killed and reaped when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    program: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` behind `setpriv --pdeathsig KILL`, which becomes the program itself, so
    /// the child's pid is the program's.
    ///
    /// It leads a process group of its own: a Ctrl-C at the terminal goes to us alone, and we
    /// end our VMs in order.
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

    /// An error if the program has ended, with what it said.
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

    /// Kills with SIGKILL and reaps. Nothing happens to a program that is already dead.
    pub(crate) fn kill(&mut self) {
        // Both fail only for a child that was reaped before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last lines of `text`.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// The file as text; empty when there is none (yet).
pub(crate) fn read_lossy(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

type Reply = mpsc::SyncSender<io::Result<Child>>;

/// Spawns on the one thread that lives as long as the process: the kernel sends the parent-death
/// signal when the *thread* that spawned a child ends, and test threads end early.
fn spawn_on_launcher(command: Command) -> io::Result<Child> {
    static LAUNCHER: OnceLock<mpsc::SyncSender<(Command, Reply)>> = OnceLock::new();
    let launcher = LAUNCHER.get_or_init(|| {
        let (sender, receiver) = mpsc::sync_channel::<(Command, Reply)>(0);
        thread::spawn(move || {
            for (mut command, reply) in receiver {
                // Nobody waits for the reply only if the asking thread has panicked.
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
