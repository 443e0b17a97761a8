//! The way back, for an agent that starts in the middle of a change.
//!
//! One file in `/run`, there from before the first step to the end: `pending` is absent as long as steps
//! are made, and then says until when the change may be confirmed. Its times are the boot clock's, and
//! it is this boot's or nobody's.

use super::NetworkError;
use super::saved_file::SavedFile;
use super::snapshot::{LinkState, Snapshot};
use crate::replace_file::{self, Attributes};
use minions_proto::message::Dns;
use netlink_packet_core::{Emitable, Parseable};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::route::RouteMessage;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Root's own: it has what programs in the guest need not know.
const DIR_MODE: u32 = 0o700;
const MODE: u32 = 0o600;

#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
}

/// What an agent before this one has left.
pub(super) struct Left {
    pub(super) snapshot: Snapshot,
    /// The id, and how long it may still be confirmed. `None`: it was in the middle of it.
    pub(super) pending: Option<(String, Duration)>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    boot_id: String,
    pending: Option<(String, u64)>,
    links: Vec<LinkState>,
    /// As netlink has them.
    addresses: Vec<Vec<u8>>,
    routes: Vec<Vec<u8>>,
    files: Vec<SavedFile>,
    hostname: String,
    taken: i64,
}

impl Journal {
    pub(super) fn new(run: &Path) -> Self {
        Self { path: run.join("minions-agent/network.json") }
    }

    /// Keeps the way back; with `pending`, for so long.
    pub(super) fn write(
        &self,
        snapshot: &Snapshot,
        pending: Option<(&str, Duration)>,
    ) -> Result<(), NetworkError> {
        let until = |within: Duration| boot_clock_ms() + milliseconds(within);
        let entry = Entry {
            boot_id: boot_id().map_err(|source| self.failed(source))?,
            pending: pending.map(|(id, within)| (id.to_owned(), until(within))),
            links: snapshot.links.clone(),
            addresses: snapshot.addresses.iter().map(bytes).collect(),
            routes: snapshot.routes.iter().map(bytes).collect(),
            files: snapshot.files.clone(),
            hostname: snapshot.hostname.clone(),
            taken: snapshot.taken,
        };
        self.store(&entry).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> NetworkError {
        NetworkError::Journal { path: self.path.clone(), source }
    }

    fn store(&self, entry: &Entry) -> io::Result<()> {
        let parent = self.path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        DirBuilder::new().recursive(true).mode(DIR_MODE).create(parent)?;
        let text = serde_json::to_vec(entry)?;
        replace_file::replace(&self.path, &text, Attributes { mode: MODE, owner: None })
    }

    /// The change is over.
    pub(super) fn clear(&self) -> Result<(), NetworkError> {
        match fs::remove_file(&self.path).map_err(|error| (error.kind(), error)) {
            // There is no journal. In the second case there is no directory for it either.
            Ok(()) | Err((io::ErrorKind::NotFound | io::ErrorKind::NotADirectory, _)) => Ok(()),
            Err((_, error)) => Err(self.failed(error)),
        }
    }

    /// What was left in this boot. One that can't be read is nobody's any more.
    pub(super) fn read(&self) -> Option<Left> {
        let text = fs::read(&self.path).ok()?;
        let entry = serde_json::from_slice::<Entry>(&text)
            .ok()
            .filter(|entry| boot_id().is_ok_and(|boot_id| boot_id == entry.boot_id));
        let left = entry.and_then(Entry::left);
        if left.is_none() {
            tracing::warn!("the journal of network changes is not this boot's, or broken");
            // The next change replaces it in any case.
            let _ = self.clear();
        }
        left
    }
}

impl Entry {
    fn left(self) -> Option<Left> {
        let addresses = self.addresses.iter().map(|bytes| AddressMessage::parse(&bytes[..]));
        let routes = self.routes.iter().map(|bytes| RouteMessage::parse(&bytes[..]));
        let nothing = Dns { owner: String::new(), servers: Vec::new(), search: Vec::new() };
        let snapshot = Snapshot {
            links: self.links,
            addresses: addresses.collect::<Result<_, _>>().ok()?,
            routes: routes.collect::<Result<_, _>>().ok()?,
            files: self.files,
            hostname: self.hostname,
            dns: nothing,
            taken: self.taken,
        };
        let left = |until: u64| Duration::from_millis(until.saturating_sub(boot_clock_ms()));
        Some(Left { snapshot, pending: self.pending.map(|(id, until)| (id, left(until))) })
    }
}

/// As netlink has it.
pub(super) fn bytes(message: &impl Emitable) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    bytes
}

fn boot_id() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
}

/// Not to be guessed, though nobody who could would need to. Never empty.
pub(super) fn mint_id() -> String {
    // Every read of this file is a new random UUID. An agent can't have started without it.
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    format!("net-{}", uuid.trim_end())
}

pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn boot_clock_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec * 1000 + now.tv_nsec / 1_000_000).unwrap_or(0)
}
