//! Notifications to the service manager (sd_notify(3)): the agent is ready, is alive, is stopping.
//! Without a service manager they do nothing.
//!
//! ```text
//!  watchdog thread ── asks ──▶ runtime        every quarter of the manager's watchdog timeout
//!        │         ◀─ answers ─┘
//!        └── WATCHDOG=1 ──▶ manager           unless an answer of the runtime is overdue
//! ```
//!
//! A separate thread feeds the watchdog: in a guest without free processor time, a delayed agent must not be
//! restarted as a hanging one. The socket stays open, because a guest that lacks descriptors must not stop the
//! notifications either. The deadline for the runtime's answer counts only the time that the runtime
//! had a processor or slept: time spent waiting for a processor does not count.

mod pulse;

use pulse::RuntimePulse;
use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Deadline for an answer of the runtime, in watchdog timeouts. A runtime that hangs never answers; one that
/// waits for a disk recovers.
const HANG: u32 = 5;

/// Connection to the service manager that started the agent, if it wants notifications.
#[derive(Debug)]
pub struct ServiceNotifier {
    socket: Option<Arc<UnixDatagram>>,
    /// The manager's watchdog timeout.
    watchdog: Option<Duration>,
}

impl ServiceNotifier {
    /// Connects according to `NOTIFY_SOCKET`, `WATCHDOG_PID` and `WATCHDOG_USEC`. If the manager is
    /// unreachable, logs a warning and sends no notifications: the agent is the only access to its guest
    /// and must serve in any case.
    #[must_use]
    pub fn from_environment() -> Self {
        let address = env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty());
        let socket = address.and_then(|address| {
            let unreachable = |error: &io::Error| {
                tracing::warn!(%error, ?address, "failed to connect to the service manager");
            };
            connect(address.as_bytes()).inspect_err(unreachable).ok().map(Arc::new)
        });
        let number = |name| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| ours && *usec > 0);
        Self { socket, watchdog: watchdog.map(Duration::from_micros) }
    }

    /// Reports that the agent accepts connections.
    pub fn ready(&self) {
        self.say("READY=1");
    }

    /// Reports that the agent is stopping.
    pub fn stopping(&self) {
        self.say("STOPPING=1");
    }

    /// Feeds the watchdog as long as the runtime that serves the connections answers. Must be called in that
    /// runtime's thread. Never returns.
    pub async fn stay_alive(&self) {
        let (Some(patience), Some(socket)) = (self.watchdog, &self.socket) else {
            return std::future::pending().await;
        };
        let pulse = RuntimePulse::of_this_thread(patience * HANG);
        let beat = (patience / 4).max(Duration::from_millis(1));
        let feeding = pulse.clone();
        let socket = Arc::clone(socket);
        let watchdog = thread::Builder::new().name("watchdog".into());
        let spawned = watchdog.spawn(move || {
            let mut detector = feeding.hang_detector();
            loop {
                if detector.is_alive() {
                    say(&socket, "WATCHDOG=1");
                }
                thread::sleep(beat);
                detector.examine(beat);
            }
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "failed to start the watchdog thread: the runtime feeds the watchdog itself");
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
        tracing::warn!(%error, state, "failed to notify the service manager");
    }
}

/// Connects to `address`; a leading `@` stands for the NUL of an abstract address.
fn connect(address: &[u8]) -> io::Result<UnixDatagram> {
    let address = match address.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(Path::new(std::ffi::OsStr::from_bytes(address)))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    // A manager that does not read must not block the agent.
    socket.set_nonblocking(true)?;
    Ok(socket)
}
