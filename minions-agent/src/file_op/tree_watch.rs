//! Operation `watch`: changes in a directory, reported by inotify(7).
//!
//! New directories are watched as soon as their creation is reported, and then listed to find the files that were
//! created before. So the creation of a file may be reported twice, but is always reported. If the kernel drops
//! events, an `overflow` is reported, and all directories are listed again for new ones.

use super::failure::{FileError, failed};
use super::metadata;
use super::operation_output::OperationOutput;
use super::watch_table::WatchTable;
use minions_proto::file_stream::{FileEvent, FileEventKind, FileKind};
use minions_proto::message::WatchTree;
use minions_tree::walk::{beneath, is_dot, itself, open_as_path, open_directory};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::fs::{FileType, RawDir};
use rustix::io::Errno;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

/// Length of the buffer for events, in bytes. An event has at most 272 bytes.
const EVENTS_LEN: usize = 16 * 1024;

/// Length of the buffer for the entries of a new directory, in bytes.
const ENTRIES_LEN: usize = 8 * 1024;

/// Maximum wait for the second half of a rename, in nanoseconds. It is short, because the kernel reports both halves
/// together.
const RENAME_PATIENCE_NS: i64 = 20_000_000;

/// Serves `watch` until the watched file is removed, or the host has closed the stream.
pub(super) fn watch(op: &WatchTree, output: &mut OperationOutput) -> Result<(), FileError> {
    let path = op.path.bytes()?;
    let root = open_as_path(&path, true)?;
    let metadata = metadata::of_file(&root).map_err(failed(&path, "stat"))?;
    drop(root);
    let recursive = op.recursive && metadata.kind == FileKind::Directory;
    let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
        .map_err(failed(&path, "watch"))?;
    let mut watcher = TreeWatcher {
        inotify: &inotify,
        path: &path,
        recursive,
        output,
        table: WatchTable::default(),
        moved: None,
        last: None,
    };
    watcher.add(b"", false)?;
    watcher.output.header(&metadata.into())?;
    watcher.output.finish()?;
    watcher.run()
}

/// First half of a rename.
struct MovedFrom {
    cookie: u32,
    name: Vec<u8>,
    directory: bool,
}

struct TreeWatcher<'a> {
    inotify: &'a OwnedFd,
    path: &'a [u8],
    recursive: bool,
    output: &'a mut OperationOutput,
    table: WatchTable,
    moved: Option<MovedFrom>,
    /// Last reported event. A series of equal events is reported once.
    last: Option<FileEvent>,
}

/// Event, copied from the reader's buffer.
struct RawEvent {
    watch: i32,
    flags: ReadFlags,
    cookie: u32,
    name: Vec<u8>,
}

impl TreeWatcher<'_> {
    fn run(&mut self) -> Result<(), FileError> {
        let mut buffer = [MaybeUninit::uninit(); EVENTS_LEN];
        let inotify = self.inotify;
        let mut reader = Reader::new(inotify, &mut buffer);
        loop {
            let event = match reader.next() {
                Ok(event) => RawEvent {
                    watch: event.wd(),
                    flags: event.events(),
                    cookie: event.cookie(),
                    name: event
                        .file_name()
                        .map(|name| name.to_bytes().to_vec())
                        .unwrap_or_default(),
                },
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => {
                    self.output.finish()?;
                    self.last = None;
                    if !self.wait()? {
                        return Ok(());
                    }
                    continue;
                }
                Err(error) => return Err(FileError::new(&error.into(), self.path, "watch")),
            };
            if !self.handle(&event)? {
                return self.output.finish();
            }
        }
    }

    /// Waits for the next event. Returns false if the host has closed the stream.
    fn wait(&mut self) -> Result<bool, FileError> {
        let patience = Timespec { tv_sec: 0, tv_nsec: RENAME_PATIENCE_NS };
        let stdout = rustix::stdio::stdout();
        let mut polled = [
            PollFd::new(self.inotify, PollFlags::IN),
            // Reports only errors: that the other end of the pipe is closed.
            PollFd::new(&stdout, PollFlags::empty()),
        ];
        let ready = poll(&mut polled, self.moved.is_some().then_some(&patience));
        match ready {
            Ok(0) => self.finish_move()?,
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(FileError::new(&error.into(), self.path, "watch")),
        }
        Ok(!polled[1].revents().intersects(PollFlags::ERR | PollFlags::HUP))
    }

    /// Reports one event. Returns false if the watched file itself is gone.
    fn handle(&mut self, event: &RawEvent) -> Result<bool, FileError> {
        let RawEvent { watch, flags, cookie, name } = event;
        if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            self.finish_move()?;
            self.report(FileEventKind::Overflow, None, None, false)?;
            self.rescan()?;
            return Ok(true);
        }
        let is_second_half = flags.contains(ReadFlags::MOVED_TO)
            && self.moved.as_ref().is_some_and(|moved| moved.cookie == *cookie);
        if !is_second_half {
            self.finish_move()?;
        }
        if flags.contains(ReadFlags::IGNORED) {
            self.table.remove(*watch);
            return Ok(!self.table.is_empty());
        }
        let Some(directory) = self.table.path(*watch) else { return Ok(true) };
        let is_root = directory.is_empty() && name.is_empty();
        if flags.intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT) {
            // The removal of any other directory is reported by its parent.
            if is_root {
                self.report(
                    FileEventKind::Removed,
                    Some(b""),
                    None,
                    flags.contains(ReadFlags::ISDIR),
                )?;
            }
            return Ok(!is_root);
        }
        let name = if name.is_empty() { directory.to_vec() } else { beneath(directory, name) };
        let is_directory = flags.contains(ReadFlags::ISDIR);
        self.report_change(*flags, *cookie, name, is_directory)?;
        Ok(true)
    }

    fn report_change(
        &mut self,
        flags: ReadFlags,
        cookie: u32,
        name: Vec<u8>,
        directory: bool,
    ) -> Result<(), FileError> {
        if flags.contains(ReadFlags::MOVED_FROM) {
            self.moved = Some(MovedFrom { cookie, name, directory });
        } else if flags.contains(ReadFlags::MOVED_TO)
            && let Some(moved) = self.moved.take()
        {
            self.report(FileEventKind::Moved, Some(&moved.name), Some(&name), directory)?;
            self.table.rename(&moved.name, &name);
        } else if flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
            self.report(FileEventKind::Created, Some(&name), None, directory)?;
            if directory && self.recursive {
                self.add_found(&name, true)?;
            }
        } else if flags.contains(ReadFlags::DELETE) {
            self.report(FileEventKind::Removed, Some(&name), None, directory)?;
        } else if flags.intersects(ReadFlags::MODIFY | ReadFlags::ATTRIB) {
            self.report(FileEventKind::Modified, Some(&name), None, directory)?;
        }
        Ok(())
    }

    /// Reports a rename out of the watched directories, which has no second half.
    fn finish_move(&mut self) -> Result<(), FileError> {
        let Some(MovedFrom { name, directory, .. }) = self.moved.take() else { return Ok(()) };
        if directory {
            for watch in self.table.take_tree(&name) {
                // The kernel may have removed it already.
                let _ = inotify::remove_watch(self.inotify, watch);
            }
        }
        self.report(FileEventKind::Removed, Some(&name), None, directory)
    }

    fn report(
        &mut self,
        kind: FileEventKind,
        name: Option<&[u8]>,
        to: Option<&[u8]>,
        directory: bool,
    ) -> Result<(), FileError> {
        let absolute = |name: &[u8]| {
            if name.is_empty() { self.path.to_vec() } else { beneath(self.path, name) }
        };
        let path = name.map(absolute).unwrap_or_default();
        let event = FileEvent::new(kind, &path, to.map(absolute).as_deref(), directory);
        if self.last.as_ref() == Some(&event) {
            return Ok(());
        }
        self.output.line(&event)?;
        self.last = Some(event);
        Ok(())
    }

    /// Watches a directory that was reported, unless it has been removed since.
    fn add_found(&mut self, name: &[u8], is_new: bool) -> Result<(), FileError> {
        match self.add(name, is_new) {
            // The directory was removed, or another file has its name.
            Err(error) if error.is_missing() || error.is_other_type() => Ok(()),
            added => added,
        }
    }

    /// Finds the directories that appeared while events were lost.
    fn rescan(&mut self) -> Result<(), FileError> {
        if !self.recursive {
            return Ok(());
        }
        self.add(b"", false)
    }

    /// Watches a directory, and all beneath it if the operation is recursive. If `is_new`, reports what it
    /// contains.
    fn add(&mut self, name: &[u8], is_new: bool) -> Result<(), FileError> {
        let path = if name.is_empty() { self.path.to_vec() } else { beneath(self.path, name) };
        // The root is not kept open, because the kernel reports the removal of a directory only when no descriptor
        // refers to it.
        let root = open_as_path(self.path, true)?;
        let directory = WatchTable::open(root, name).map_err(failed(&path, "watch"))?;
        let itself = itself(&directory);
        let flags = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVE_SELF;
        let watch =
            inotify::add_watch(self.inotify, itself, flags).map_err(|error| match error {
                Errno::NOSPC => {
                    let reason =
                        "the kernel's limit of watches is reached (fs.inotify.max_user_watches)";
                    FileError::refusal(error, &path, "watch", reason)
                }
                error => FileError::new(&error.into(), &path, "watch"),
            })?;
        self.table.insert(watch, name.to_vec()).map_err(|errno| {
            let reason = format!("more than {} directories; watch a smaller tree", WatchTable::MAX);
            FileError::refusal(errno, &path, "watch", &reason)
        })?;
        if self.recursive { self.add_entries(&directory, name, &path, is_new) } else { Ok(()) }
    }

    fn add_entries(
        &mut self,
        directory: &OwnedFd,
        name: &[u8],
        path: &[u8],
        is_new: bool,
    ) -> Result<(), FileError> {
        let opened = open_directory(directory, b".").map_err(failed(path, "open"))?;
        let mut names = Vec::new();
        {
            let mut buffer = Vec::with_capacity(ENTRIES_LEN);
            let mut entries = RawDir::new(opened.as_fd(), buffer.spare_capacity_mut());
            while let Some(entry) = entries.next() {
                let entry = entry.map_err(failed(path, "list"))?;
                if is_dot(entry.file_name()) {
                    continue;
                }
                let name = beneath(name, entry.file_name().to_bytes());
                let is_directory = entry.file_type() == FileType::Directory;
                if is_new {
                    self.report(FileEventKind::Created, Some(&name), None, is_directory)?;
                }
                if is_directory {
                    if names.len() >= WatchTable::MAX {
                        let reason = format!(
                            "more than {} directories; watch a smaller tree",
                            WatchTable::MAX
                        );
                        return Err(FileError::refusal(Errno::NOSPC, path, "watch", &reason));
                    }
                    names.push(name);
                }
            }
        }
        drop(opened);
        for name in names {
            self.add_found(&name, is_new)?;
        }
        Ok(())
    }
}
