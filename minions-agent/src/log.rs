//! The agent's log, which never blocks the agent.
//!
//! Standard error is a journal's socket, a serial line or a pipe, and its reader may be slow, stopped
//! or full. One thread writes to it and may block there. All other threads queue their lines; lines
//! that do not fit are dropped and counted. The log itself reports how many, panics go through the same queue, and a
//! flush has a deadline: this is more than `tracing-appender` offers.
//!
//! ```text
//!  runtime ── try_send ──▶ at most 256 lines ── thread ──▶ standard error
//!             └─ full: dropped, counted, and reported as soon as there is room
//! ```

mod line_subscriber;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

pub use line_subscriber::LineSubscriber;

/// Most lines that wait to be written.
const MAX_LINES: usize = 256;

/// Maximum length of a line, in bytes; the rest of it is cut off.
const MAX_LINE_LEN: usize = 4 * 1024;

/// Handle of the log. Clones write to the same log.
#[derive(Debug, Clone)]
pub struct LogWriter {
    entries: SyncSender<LogEntry>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum LogEntry {
    Line(Vec<u8>),
    /// Marker: the writer signals this channel when everything before it has been written.
    Flush(SyncSender<()>),
}

impl LogWriter {
    /// Starts the thread that writes to standard error. If no thread can be started, all lines are
    /// dropped: the agent is the only access to its guest and must start in any case.
    #[must_use]
    pub fn to_standard_error() -> Self {
        Self::to(io::stderr())
    }

    fn to(sink: impl Write + Send + 'static) -> Self {
        let (entries, waiting) = sync_channel(MAX_LINES);
        let dropped = Arc::new(AtomicU64::new(0));
        let log = Self { entries, dropped: Arc::clone(&dropped) };
        let writer = thread::Builder::new().name("log".into());
        // A failure cannot be reported: this is the log.
        let _ = writer.spawn(move || write_all(&waiting, sink, &dropped));
        log
    }

    /// Queues a line, which includes its `\n`. Never blocks; drops and counts the line if the queue is full.
    pub fn say(&self, line: &[u8]) {
        let line = match line.get(..MAX_LINE_LEN) {
            Some(beginning) => [beginning, b"\n"].concat(),
            None => line.to_vec(),
        };
        if self.entries.try_send(LogEntry::Line(line)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything has been written, at most for `patience`. Blocks.
    pub fn flush(&self, patience: Duration) {
        let (done, flushed) = sync_channel(1);
        // If the queue is full, its writer is blocked: waiting would not help.
        if self.entries.try_send(LogEntry::Flush(done)).is_ok() {
            let _ = flushed.recv_timeout(patience);
        }
    }

    /// Redirects panic messages to this log: the standard library would write them to standard error
    /// itself, and could block there.
    pub fn take_panics(&self) {
        let log = self.clone();
        std::panic::set_hook(Box::new(move |panic| log.say(format!("{panic}\n").as_bytes())));
    }
}

/// Writes entries to `sink` until the last handle of the log is dropped.
fn write_all(waiting: &Receiver<LogEntry>, mut sink: impl Write, dropped: &AtomicU64) {
    for entry in waiting {
        // Write errors are ignored: standard error is the only sink, and may recover.
        match entry {
            LogEntry::Line(line) => {
                let _ = sink.write_all(&line);
            }
            LogEntry::Flush(done) => {
                let _ = sink.flush();
                let _: Result<(), TrySendError<()>> = done.try_send(());
            }
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = writeln!(sink, "minions-agent: {lost} lines of this log were dropped");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixStream;

    /// Deadline for what should happen at once.
    const SOON: Duration = Duration::from_secs(30);

    #[test]
    fn lines_arrive_whole_and_in_order_and_a_very_long_one_is_cut() {
        let (sink, source) = UnixStream::pair().unwrap();
        let log = LogWriter::to(sink);
        log.say(b"first\n");
        log.say(&[b'x'; 2 * MAX_LINE_LEN]);
        log.flush(SOON);
        drop(log);
        let lines: Vec<_> = BufReader::new(source).lines().map(Result::unwrap).collect();
        assert_eq!((lines.len(), lines[0].as_str(), lines[1].len()), (2, "first", MAX_LINE_LEN));
    }

    #[test]
    fn lines_for_a_blocked_sink_are_dropped_and_their_number_is_reported() {
        let (sink, source) = UnixStream::pair().unwrap();
        let log = LogWriter::to(sink);
        // Far more than the socket buffer and the queue hold; the loop must end nevertheless.
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        for _ in 0..10 * MAX_LINES {
            log.say(&line);
        }
        let dropped = log.dropped.load(Ordering::Relaxed);
        assert!(dropped > 0);
        drop(log);
        let lines: Vec<_> = BufReader::new(source).lines().map(Result::unwrap).collect();
        let reported: u64 = lines
            .iter()
            .filter_map(|line| {
                line.strip_prefix("minions-agent: ")?.split(' ').next()?.parse::<u64>().ok()
            })
            .sum();
        let written = lines.iter().filter(|line| line.starts_with('x')).count();
        assert_eq!(reported + written as u64, 10 * MAX_LINES as u64);
    }
}
