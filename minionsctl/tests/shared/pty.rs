//! A pseudo-terminal with simulated keys.

use rustix::fs::{Mode, OFlags, open};
use rustix::io::dup;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;
use testkit::wait::{DEADLINE, until};

/// Output so far.
#[derive(Default)]
struct Screen {
    text: Mutex<Vec<u8>>,
    more: Condvar,
}

/// A program in a terminal. Dropping it kills the program.
pub(crate) struct Pty {
    keyboard: File,
    /// Held open, so that the terminal outlives the program.
    terminal: OwnedFd,
    screen: Arc<Screen>,
    /// Length of the output that earlier waits have consumed.
    seen: usize,
    pub(crate) child: Child,
}

impl Pty {
    /// Runs the command in a new session, in a terminal of 24 rows and 80 columns.
    pub(crate) fn start(command: &Command) -> Self {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let terminal = open(ptsname(&master, Vec::new()).unwrap(), flags, Mode::empty()).unwrap();
        tcsetwinsize(&master, size(24, 80)).unwrap();
        let side = || dup(&terminal).unwrap();
        let mut session = Command::new("setsid");
        session.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => session.env(key, value),
                None => session.env_remove(key),
            };
        }
        session.env("TERM", "xterm-of-the-test");
        let child = session.stdin(side()).stdout(side()).stderr(side()).spawn().unwrap();
        let screen = Arc::new(Screen::default());
        let mut output = File::from(dup(&master).unwrap());
        let shown = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = output.read(&mut buffer) {
                shown.text.lock().unwrap().extend_from_slice(&buffer[..len]);
                shown.more.notify_all();
            }
        });
        Self { keyboard: File::from(master), terminal, screen, seen: 0, child }
    }

    pub(crate) fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    pub(crate) fn resize(&self, rows: u16, cols: u16) {
        tcsetwinsize(&self.keyboard, size(rows, cols)).unwrap();
    }

    /// Waits until `wanted` is printed after the text of the last wait.
    #[track_caller]
    pub(crate) fn shows(&mut self, wanted: &str) {
        let deadline = Instant::now() + DEADLINE;
        let mut text = self.screen.text.lock().unwrap();
        loop {
            let found =
                text[self.seen..].windows(wanted.len()).position(|at| at == wanted.as_bytes());
            if let Some(at) = found {
                self.seen += at + wanted.len();
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {wanted:?} in {:?}", String::from_utf8_lossy(&text));
            text = self.screen.more.wait_timeout(text, left).unwrap().0;
        }
    }

    /// Returns the modes of the terminal, for comparison.
    pub(crate) fn modes(&self) -> String {
        let Termios {
            input_modes, output_modes, control_modes, local_modes, special_codes, ..
        } = tcgetattr(&self.terminal).unwrap();
        format!(
            "{input_modes:?} {output_modes:?} {control_modes:?} {local_modes:?} {special_codes:?}"
        )
    }

    /// Waits for the end of the program, and returns its exit code.
    #[track_caller]
    pub(crate) fn code(&mut self) -> Option<i32> {
        until("the program in the terminal has ended", || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn size(rows: u16, cols: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 }
}
