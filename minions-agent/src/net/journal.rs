//! Journal of a change: lets an agent that starts in the middle of a change restore the network.
//!
//! The journal is one file in `/run` that exists from before the first step to the end of the change. `pending`
//! is absent while steps are made; afterwards it holds the deadline for the confirmation. Times are those of the
//! boot clock, and a journal of another boot is ignored.

use super::error::NetworkError;
use super::saved_file::SavedFile;
use super::snapshot::{LinkState, NetworkSnapshot};
use crate::boot_clock::{self, milliseconds};
use crate::netlink::address::AddressMessage;
use crate::netlink::route::RouteMessage;
use minions_proto::message::Dns;
use minions_tree::files::{self, FileAttributes};
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Only root can read the journal: programs in the guest have no need to know its content.
const DIR_MODE: u32 = 0o700;
const MODE: u32 = 0o600;

#[derive(Debug)]
pub(super) struct ChangeJournal {
    path: PathBuf,
}

/// Change left over from a previous agent.
pub(super) struct LeftoverChange {
    pub(super) snapshot: NetworkSnapshot,
    /// Id, and time left for the confirmation. `None`: the change was in progress.
    pub(super) pending: Option<(String, Duration)>,
}

#[derive(Serialize, Deserialize)]
struct JournalEntry {
    boot_id: String,
    pending: Option<(String, u64)>,
    links: Vec<LinkState>,
    /// Netlink messages.
    addresses: Vec<Vec<u8>>,
    routes: Vec<Vec<u8>>,
    files: Vec<SavedFile>,
    hostname: String,
    taken: u64,
}

impl ChangeJournal {
    pub(super) fn new(run: &Path) -> Self {
        Self { path: run.join("minions-agent/network.json") }
    }

    /// Writes the snapshot; `pending` is the id and the time for the confirmation.
    pub(super) fn write(
        &self,
        snapshot: &NetworkSnapshot,
        pending: Option<(&str, Duration)>,
    ) -> Result<(), NetworkError> {
        let until = |within: Duration| boot_clock::now_ms() + milliseconds(within);
        let entry = JournalEntry {
            boot_id: boot_id().map_err(|source| self.failed(source))?,
            pending: pending.map(|(id, within)| (id.to_owned(), until(within))),
            links: snapshot.links.clone(),
            addresses: snapshot.addresses.iter().map(AddressMessage::emit).collect(),
            routes: snapshot.routes.iter().map(RouteMessage::emit).collect(),
            files: snapshot.files.clone(),
            hostname: snapshot.hostname.clone(),
            taken: snapshot.taken,
        };
        self.store(&entry).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> NetworkError {
        NetworkError::Journal { path: self.path.clone(), source }
    }

    fn store(&self, entry: &JournalEntry) -> io::Result<()> {
        let parent = self.path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        DirBuilder::new().recursive(true).mode(DIR_MODE).create(parent)?;
        let text = minions_proto::json::to_vec(entry)?;
        files::replace(&self.path, &text, FileAttributes { mode: MODE, owner: None })
    }

    /// Removes the journal at the end of a change.
    pub(super) fn clear(&self) -> Result<(), NetworkError> {
        match fs::remove_file(&self.path).map_err(|error| (error.kind(), error)) {
            // There is no journal, or not even a directory for it.
            Ok(()) | Err((io::ErrorKind::NotFound | io::ErrorKind::NotADirectory, _)) => Ok(()),
            Err((_, error)) => Err(self.failed(error)),
        }
    }

    /// Reads the change left over in this boot. A journal of another boot or with invalid content is removed.
    pub(super) fn read(&self) -> Option<LeftoverChange> {
        let text = fs::read(&self.path).ok()?;
        let entry = serde_json::from_slice::<JournalEntry>(&text)
            .ok()
            .filter(|entry| boot_id().is_ok_and(|boot_id| boot_id == entry.boot_id));
        let left = entry.and_then(JournalEntry::left);
        if left.is_none() {
            tracing::warn!(
                "removing a journal of network changes that is invalid or of another boot"
            );
            // On failure, the next change replaces it.
            let _ = self.clear();
        }
        left
    }
}

impl JournalEntry {
    fn left(self) -> Option<LeftoverChange> {
        let addresses = self.addresses.iter().map(|bytes| AddressMessage::parse(bytes));
        let routes = self.routes.iter().map(|bytes| RouteMessage::parse(bytes));
        let nothing = Dns { owner: String::new(), servers: Vec::new(), search: Vec::new() };
        let snapshot = NetworkSnapshot {
            links: self.links,
            addresses: addresses.collect::<Option<_>>()?,
            routes: routes.collect::<Option<_>>()?,
            files: self.files,
            hostname: self.hostname,
            dns: nothing,
            taken: self.taken,
        };
        let left = |until: u64| Duration::from_millis(until.saturating_sub(boot_clock::now_ms()));
        Some(LeftoverChange {
            snapshot,
            pending: self.pending.map(|(id, until)| (id, left(until))),
        })
    }
}

fn boot_id() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
}

/// Generates the random id of a change.
pub(super) fn mint_id() -> String {
    // Every read of this file returns a new random UUID. The agent cannot start without this file.
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    format!("net-{}", uuid.trim_end())
}
