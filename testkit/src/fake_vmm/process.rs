//! Process that listens on a VM's socket, so that the kernel reports it, and not the test, as the VMM.
//!
//! The process only calls `listen(2)`; the test's own process has the same socket and accepts connections.

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Program of the process: takes its name, listens on its standard input, writes a byte, and ends when the other end
/// of its standard output is closed, so in any case with the test.
const LISTEN: &str = r#"
$0 = shift;
listen(STDIN, 128) or die "listen: $!";
open(my $test, "+<&=", 1) or die "open: $!";
syswrite($test, ".");
sysread($test, my $end, 1);
"#;

/// Time limit for the start of an interpreter on a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// Running process. Killed when dropped.
#[derive(Debug)]
pub(super) struct ListenerProcess {
    child: Child,
    /// Closed when this process ends.
    _alive: UnixStream,
}

impl ListenerProcess {
    /// Starts a process of this name. Returns it with its listener at `path`.
    pub(super) fn start(path: &Path, name: &str) -> io::Result<(Self, UnixListener)> {
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        bind(&socket, &SocketAddrUnix::new(path)?)?;
        let (mut ours, theirs) = UnixStream::pair()?;
        let child = Command::new("perl")
            .args(["-e", LISTEN, name])
            .stdin(Stdio::from(socket.try_clone()?))
            .stdout(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("perl: {error}")))?;
        let mut process = Self { child, _alive: ours.try_clone()? };
        ours.set_read_timeout(Some(DEADLINE))?;
        if let Err(error) = ours.read_exact(&mut [0]) {
            process.end();
            return Err(io::Error::new(error.kind(), format!("no listener: {error}")));
        }
        Ok((process, UnixListener::from(socket)))
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn end(&mut self) {
        // Both fail only if the process has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for ListenerProcess {
    fn drop(&mut self) {
        self.end();
    }
}
