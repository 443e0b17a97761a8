//! The audit file and the thread that writes it.
//!
//! A disk that is full or hangs must not block the async threads, so a dedicated thread owns the file:
//!
//! ```text
//!  call ── line ──▶ at most 1024 lines ── thread ──▶ file
//!       ◀─ written? ─────────────────────┘  └─ not written: kept (1024 lines), tried again each second
//! ```

use super::entry::{Entry, lost};
use super::figures::AuditFigures;
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Maximum number of lines queued for the thread.
const MAX_QUEUED: usize = 1024;

/// Maximum number of lines that are kept for a retry.
const MAX_KEPT: usize = 1024;

/// Pause between two attempts to write the kept lines.
const RETRY: Duration = Duration::from_secs(1);

/// Time that a call waits for its entry; a disk that takes longer counts as failed.
const WRITE_DEADLINE: Duration = Duration::from_secs(2);

/// Policy for an entry that cannot be written now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// Drop the entry, because its call is refused.
    Never,
    /// Keep the entry and retry.
    UntilWritten,
}

/// Handle of the file's thread. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct AuditFile {
    orders: SyncSender<Order>,
    counters: Arc<Counters>,
}

#[derive(Debug)]
enum Order {
    Write {
        line: Vec<u8>,
        keep: Keep,
        written: Option<oneshot::Sender<bool>>,
    },
    /// Answered when all earlier orders have been attempted.
    Flush(oneshot::Sender<()>),
}

#[derive(Debug, Default)]
struct Counters {
    is_failing: AtomicBool,
    failures: AtomicU64,
    lost: AtomicU64,
}

impl AuditFile {
    /// Opens the file for appending; creates it with mode 0600, because the entries are confidential.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut open = OpenOptions::new();
        let file = open.append(true).create(true).mode(0o600).open(path)?;
        Self::start(file, path)
    }

    fn start(file: File, path: &Path) -> io::Result<Self> {
        let (orders, received) = sync_channel(MAX_QUEUED);
        let counters = Arc::new(Counters::default());
        let writer = Writer {
            file,
            path: path.to_owned(),
            kept: VecDeque::new(),
            lost: 0,
            counters: Arc::clone(&counters),
        };
        thread::Builder::new().name("audit".into()).spawn(move || writer.run(&received))?;
        Ok(Self { orders, counters })
    }

    /// Writes one entry; reports whether it is in the file.
    ///
    /// Cancel safe: the entry is written as a whole or not at all.
    pub(super) async fn write(&self, entry: &Entry, keep: Keep) -> bool {
        let (written, answer) = oneshot::channel();
        let order = Order::Write { line: entry.line(), keep, written: Some(written) };
        self.order(order) && matches!(timeout(WRITE_DEADLINE, answer).await, Ok(Ok(true)))
    }

    /// Hands one entry to the thread without waiting for it.
    pub(super) fn submit(&self, entry: &Entry) {
        self.order(Order::Write { line: entry.line(), keep: Keep::UntilWritten, written: None });
    }

    /// Waits until all earlier entries have been attempted, at most for [`WRITE_DEADLINE`].
    pub(super) async fn flush(&self) {
        let (tried, answer) = oneshot::channel();
        if self.order(Order::Flush(tried)) {
            let _ = timeout(WRITE_DEADLINE, answer).await;
        }
    }

    /// Queues an order for the thread; reports whether there was room. The queue fills up while the disk hangs.
    fn order(&self, order: Order) -> bool {
        let Err(refused) = self.orders.try_send(order) else { return true };
        let (std::sync::mpsc::TrySendError::Full(order)
        | std::sync::mpsc::TrySendError::Disconnected(order)) = refused;
        if let Order::Write { keep: Keep::UntilWritten, .. } = order {
            self.counters.lost.fetch_add(1, Ordering::Relaxed);
        }
        self.counters.failures.fetch_add(1, Ordering::Relaxed);
        false
    }

    pub(super) fn figures(&self) -> AuditFigures {
        AuditFigures {
            is_writable: !self.counters.is_failing.load(Ordering::Relaxed),
            failures: self.counters.failures.load(Ordering::Relaxed),
            lost: self.counters.lost.load(Ordering::Relaxed),
        }
    }
}

/// State of the thread.
struct Writer {
    file: File,
    path: PathBuf,
    /// Lines that could not be written yet, oldest first.
    kept: VecDeque<Vec<u8>>,
    /// Number of lost lines that the file does not report yet.
    lost: u64,
    counters: Arc<Counters>,
}

impl Writer {
    /// Executes orders until the last [`AuditFile`] is dropped.
    fn run(mut self, orders: &Receiver<Order>) {
        loop {
            let order = if self.kept.is_empty() && self.lost == 0 {
                orders.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                orders.recv_timeout(RETRY)
            };
            match order {
                Ok(Order::Write { line, keep, written }) => {
                    let success = self.write(line, keep);
                    // Fails if the call no longer waits for the answer.
                    let _ = written.map(|written| written.send(success));
                }
                Ok(Order::Flush(tried)) => {
                    self.write_kept();
                    let _ = tried.send(());
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.write_kept();
                }
                Err(RecvTimeoutError::Disconnected) => {
                    self.write_kept();
                    return;
                }
            }
        }
    }

    /// Appends the line after all kept lines; reports whether it is in the file.
    fn write(&mut self, line: Vec<u8>, keep: Keep) -> bool {
        if self.write_kept() && self.append(&line) {
            return true;
        }
        match keep {
            Keep::Never => {}
            Keep::UntilWritten if self.kept.len() < MAX_KEPT => self.kept.push_back(line),
            Keep::UntilWritten => {
                self.lost += 1;
                self.counters.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
        false
    }

    /// Writes the kept lines, and the report of lost lines; reports whether nothing is left to write.
    fn write_kept(&mut self) -> bool {
        while let Some(line) = self.kept.pop_front() {
            if !self.append(&line) {
                self.kept.push_front(line);
                return false;
            }
        }
        if self.lost > 0 && self.append(&lost(self.lost)) {
            self.lost = 0;
        }
        self.lost == 0
    }

    fn append(&mut self, line: &[u8]) -> bool {
        let result = append_whole(&mut self.file, line);
        let was_failing = self.counters.is_failing.swap(result.is_err(), Ordering::Relaxed);
        match result {
            Ok(()) if was_failing => {
                tracing::info!(path = %self.path.display(), "the audit log can be written again");
            }
            Ok(()) => {}
            Err(error) => {
                self.counters.failures.fetch_add(1, Ordering::Relaxed);
                if !was_failing {
                    let path = self.path.display();
                    tracing::error!(%path, %error, "the audit log cannot be written");
                }
                return false;
            }
        }
        true
    }
}

/// Appends the line as a whole: if a full disk takes only a part, that part is removed again.
fn append_whole(file: &mut File, line: &[u8]) -> io::Result<()> {
    let before = file.metadata()?;
    let mut rest = line;
    while !rest.is_empty() {
        match file.write(rest) {
            Ok(0) => {
                return undo(
                    file,
                    &before,
                    line.len() - rest.len(),
                    io::ErrorKind::WriteZero.into(),
                );
            }
            Ok(taken) => rest = rest.get(taken..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return undo(file, &before, line.len() - rest.len(), error),
        }
    }
    Ok(())
}

/// Removes the part of a line that was written, unless the file was changed by another process since. Always returns
/// `error`, or the failure to remove the part.
fn undo(
    file: &File,
    before: &std::fs::Metadata,
    written: usize,
    error: io::Error,
) -> io::Result<()> {
    let part = u64::try_from(written).unwrap_or(u64::MAX);
    if part > 0 && before.is_file() && file.metadata()?.len() == before.len() + part {
        file.set_len(before.len())?;
    }
    Err(error)
}

#[cfg(test)]
mod tests {
    use super::super::entry::{By, Stage};
    use super::*;
    use minions_api::service::Identity;
    use std::fs;
    use std::io::Read;
    use std::os::fd::OwnedFd;

    fn entry(request_id: &str) -> Entry {
        Entry {
            stage: Stage::End,
            by: By::new(&Identity::User { uid: 0 }, false),
            action: "POST /exec".into(),
            vm: None,
            program: None,
            subject: None,
            exec_id: None,
            outcome: None,
            allowed: true,
            status: Some(200),
            duration_ms: None,
            count: None,
            request_id: request_id.into(),
            trace_id: None,
        }
    }

    fn ids(path: &Path) -> Vec<String> {
        let text = fs::read_to_string(path).unwrap();
        let lines =
            text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.map(|line| line["span"]["request_id"].as_str().unwrap_or("-").to_owned()).collect()
    }

    #[tokio::test]
    async fn an_entry_is_in_the_file_before_its_call_continues() {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let file = AuditFile::open(&path).unwrap();
        for id in ["a", "b"] {
            assert!(file.write(&entry(id), Keep::Never).await);
            assert_eq!(ids(&path).last().unwrap(), id);
        }
        file.submit(&entry("c"));
        file.flush().await;
        assert_eq!(ids(&path), ["a", "b", "c"]);
        assert_eq!(file.figures(), AuditFigures { is_writable: true, failures: 0, lost: 0 });
    }

    #[tokio::test]
    async fn failures_on_a_full_disk_are_reported_and_counted() {
        let file = AuditFile::open(Path::new("/dev/full")).unwrap();
        assert!(!file.write(&entry("a"), Keep::Never).await);
        assert!(!file.figures().is_writable);
        assert_eq!((file.figures().failures, file.figures().lost), (1, 0));
        for _ in 0..MAX_KEPT + 3 {
            file.write(&entry("b"), Keep::UntilWritten).await;
        }
        assert_eq!(file.figures().lost, 3);
    }

    /// A full pipe stands for a full disk; reading from it makes room.
    #[test]
    fn kept_lines_are_written_in_order_after_the_disk_has_room_and_losses_are_reported() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut writer = File::from(OwnedFd::from(writer));
        rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK).unwrap();
        let mut filled = 0;
        while let Ok(written) = writer.write(&[b'x'; 4096]) {
            filled += written;
        }
        let mut writer = Writer {
            file: writer,
            path: "pipe".into(),
            kept: VecDeque::new(),
            lost: 2,
            counters: Arc::default(),
        };
        assert!(!writer.write(entry("never").line(), Keep::Never));
        assert!(!writer.write(entry("first").line(), Keep::UntilWritten));
        assert!(!writer.write(entry("second").line(), Keep::UntilWritten));
        reader.read_exact(&mut vec![0; filled]).unwrap();
        assert!(writer.write(entry("third").line(), Keep::Never));
        drop(writer);
        let mut written = Vec::new();
        reader.read_to_end(&mut written).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), written).unwrap();
        assert_eq!(ids(file.path()), ["first", "second", "-", "third"]);
        assert!(fs::read_to_string(file.path()).unwrap().contains("\"count\":2"));
    }
}
