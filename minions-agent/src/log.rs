//! The agent's log, which never holds the agent up.
//!
//! Standard error is a journal's socket, a serial line or a pipe, and whoever reads it may be slow,
//! stopped or full. One thread writes to it and may hang there; everybody else hands lines over, or
//! drops them and counts them when there are too many:
//!
//! ```text
//!  runtime ── try_send ──▶ at most 256 lines ── thread ──▶ standard error
//!             └─ full: dropped, counted, and said as soon as there is room
//! ```

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait to be written.
const MAX_LINES: usize = 256;

/// Of one line, in bytes; the rest of it is cut off.
const MAX_LINE_LEN: usize = 4 * 1024;

/// Where lines go. Clones are the same log.
#[derive(Debug, Clone)]
pub struct Log {
    entries: SyncSender<Entry>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Entry {
    Line(Vec<u8>),
    /// Everything before has been written: to be said here.
    Flush(SyncSender<()>),
}

impl Log {
    /// Begins to write to standard error. Without a thread for it, all lines are dropped: an agent
    /// that is the only way into its guest starts all the same.
    #[must_use]
    pub fn to_standard_error() -> Self {
        Self::to(io::stderr())
    }

    fn to(sink: impl Write + Send + 'static) -> Self {
        let (entries, waiting) = sync_channel(MAX_LINES);
        let dropped = Arc::new(AtomicU64::new(0));
        let log = Self { entries, dropped: Arc::clone(&dropped) };
        let writer = thread::Builder::new().name("log".into());
        // The agent's log is what would say that this failed.
        let _ = writer.spawn(move || write_all(&waiting, sink, &dropped));
        log
    }

    /// A line, `\n` included.
    pub fn say(&self, line: &[u8]) {
        let line = match line.get(..MAX_LINE_LEN) {
            Some(beginning) => [beginning, b"\n"].concat(),
            None => line.to_vec(),
        };
        if self.entries.try_send(Entry::Line(line)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything has been written, for so long at most.
    pub fn flush(&self, patience: Duration) {
        let (tell, told) = sync_channel(1);
        // A log that is full is a log that nobody takes from.
        if self.entries.try_send(Entry::Flush(tell)).is_ok() {
            let _ = told.recv_timeout(patience);
        }
    }

    /// Panics go here too: the standard library would write them to standard error itself, and hang
    /// there.
    pub fn take_panics(&self) {
        let log = self.clone();
        std::panic::set_hook(Box::new(move |panic| log.say(format!("{panic}\n").as_bytes())));
    }
}

/// Until the last log is gone.
fn write_all(waiting: &Receiver<Entry>, mut sink: impl Write, dropped: &AtomicU64) {
    for entry in waiting {
        // A sink that is broken may be mended; there is nobody else to tell.
        match entry {
            Entry::Line(line) => {
                let _ = sink.write_all(&line);
            }
            Entry::Flush(tell) => {
                let _ = sink.flush();
                let _: Result<(), TrySendError<()>> = tell.try_send(());
            }
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = writeln!(sink, "minions-agent: {lost} lines of this log were dropped");
        }
    }
}

impl Write for Log {
    /// Takes a whole line, always.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.say(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixStream;

    /// For what happens at once.
    const SOON: Duration = Duration::from_secs(30);

    #[test]
    fn lines_arrive_whole_and_in_order_and_a_very_long_one_is_cut() {
        let (sink, source) = UnixStream::pair().unwrap();
        let log = Log::to(sink);
        log.say(b"first\n");
        log.say(&[b'x'; 2 * MAX_LINE_LEN]);
        log.flush(SOON);
        drop(log);
        let lines: Vec<_> = BufReader::new(source).lines().map(Result::unwrap).collect();
        assert_eq!((lines.len(), lines[0].as_str(), lines[1].len()), (2, "first", MAX_LINE_LEN));
    }

    #[test]
    fn a_sink_that_nobody_reads_costs_lines_and_is_told_how_many() {
        let (sink, source) = UnixStream::pair().unwrap();
        let log = Log::to(sink);
        // Far more than a socket buffer and the waiting lines: comes to its end all the same.
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        for _ in 0..10 * MAX_LINES {
            log.say(&line);
        }
        let dropped = log.dropped.load(Ordering::Relaxed);
        assert!(dropped > 0);
        drop(log);
        let lines: Vec<_> = BufReader::new(source).lines().map(Result::unwrap).collect();
        let said: u64 = lines
            .iter()
            .filter_map(|line| {
                line.strip_prefix("minions-agent: ")?.split(' ').next()?.parse::<u64>().ok()
            })
            .sum();
        let written = lines.iter().filter(|line| line.starts_with('x')).count();
        assert_eq!(said + written as u64, 10 * MAX_LINES as u64);
    }
}
