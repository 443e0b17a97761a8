//! What the service manager is told (sd_notify(3)): that the agent is ready, that it still lives,
//! that it ends. Without a service manager there is nobody to tell, and nothing happens.
//!
//! ```text
//!  watchdog thread ── asks ──▶ runtime        every quarter of the manager's patience
//!        │         ◀─ answers ─┘
//!        └── WATCHDOG=1 ──▶ manager           unless the runtime owes an answer for too long
//! ```
//!
//! Signs of life come from a thread of their own: a guest without processor time to spare must not lose its
//! agent, which would be a hang that is none. Whether the runtime hangs is measured in the time that it had
//! to answer: the time that it waited for a processor doesn't count.

mod pulse;

use pulse::Pulse;
use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// How many times the manager's patience a runtime may take for an answer. One that hangs does so for ever;
/// one that waits for a disk comes back.
const HANG: u32 = 5;

/// The manager that started us, if it wants to hear.
#[derive(Debug)]
pub struct Supervision {
    socket: Option<Arc<UnixDatagram>>,
    /// How long it waits for a sign of life.
    watchdog: Option<Duration>,
}

impl Supervision {
    /// As the environment says. A manager that can't be reached is none: the agent is the only way
    /// into its guest, and serves all the same.
    #[must_use]
    pub fn from_environment() -> Self {
        let address = env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty());
        let socket = address.and_then(|address| {
            let unreachable = |error: &io::Error| {
                tracing::warn!(%error, ?address, "the service manager can't be reached");
            };
            connect(address.as_bytes()).inspect_err(unreachable).ok().map(Arc::new)
        });
        let number = |name| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| ours && *usec > 0);
        Self { socket, watchdog: watchdog.map(Duration::from_micros) }
    }

    /// Connections are taken from now on.
    pub fn ready(&self) {
        self.say("READY=1");
    }

    /// The end has begun.
    pub fn stopping(&self) {
        self.say("STOPPING=1");
    }

    /// Gives signs of life for as long as the runtime that serves the connections answers. To be called
    /// in that runtime's thread. Never returns.
    pub async fn stay_alive(&self) {
        let (Some(patience), Some(socket)) = (self.watchdog, &self.socket) else {
            return std::future::pending().await;
        };
        let pulse = Pulse::of_this_thread(patience * HANG);
        let beat = (patience / 4).max(Duration::from_millis(1));
        let (feeding, socket) = (pulse.clone(), Arc::clone(socket));
        let watchdog = thread::Builder::new().name("watchdog".into());
        let spawned = watchdog.spawn(move || {
            let mut examination = feeding.examination();
            loop {
                if examination.is_alive() {
                    say(&socket, "WATCHDOG=1");
                }
                thread::sleep(beat);
                examination.examine(beat);
            }
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread for the watchdog: the runtime gives signs of life itself");
            loop {
                self.say("WATCHDOG=1");
                tokio::time::sleep(beat).await;
            }
        }
        pulse.beat().await
    }

    fn say(&self, state: &str) {
        if let Some(socket) = &self.socket {
            say(socket, state);
        }
    }
}

fn say(socket: &UnixDatagram, state: &str) {
    if let Err(error) = socket.send(state.as_bytes()) {
        tracing::warn!(%error, state, "the service manager was not told");
    }
}

/// `@` stands for the NUL of an abstract address.
fn connect(address: &[u8]) -> io::Result<UnixDatagram> {
    let address = match address.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(Path::new(std::ffi::OsStr::from_bytes(address)))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    // A manager that doesn't read must not hold us up.
    socket.set_nonblocking(true)?;
    Ok(socket)
}
