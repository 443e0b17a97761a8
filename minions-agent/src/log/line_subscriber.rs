//! Events of `tracing` as lines of the log.
//!
//! ```text
//! 2026-01-31T12:00:00.123456Z  INFO listening on vsock port=1024
//! ```
//!
//! The agent has no spans, and one filter: the level. `tracing-subscriber` would bring a registry of spans, a pool for
//! them and storage for each thread.

use super::LogWriter;
use std::fmt::{self, Debug, Write};
use std::time::SystemTime;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Name of the field with the text of an event.
const MESSAGE: &str = "message";

/// Subscriber that writes events up to a level to the log.
#[derive(Debug)]
pub struct LineSubscriber {
    most: Level,
    log: LogWriter,
}

impl LineSubscriber {
    /// Returns a subscriber for events up to the level `most`.
    #[must_use]
    pub fn new(most: Level, log: LogWriter) -> Self {
        Self { most, log }
    }
}

impl Subscriber for LineSubscriber {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.most
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::from_level(self.most))
    }

    fn event(&self, event: &Event<'_>) {
        let line = line(SystemTime::now(), event);
        self.log.say(line.as_bytes());
    }

    /// Returns the same id for every span: spans are not shown.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn line(time: SystemTime, event: &Event<'_>) -> String {
    let mut line = EventLine::default();
    event.record(&mut line);
    let time = humantime::format_rfc3339_micros(time);
    let level = event.metadata().level();
    format!("{time} {level:>5}{}{}\n", line.message, line.fields)
}

/// Text and fields of an event, each after a space.
#[derive(Debug, Default)]
struct EventLine {
    message: String,
    fields: String,
}

impl Visit for EventLine {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a string fails only if the value's own implementation does.
        let _ = match field.name() {
            MESSAGE => write!(EscapedText(&mut self.message), " {value:?}"),
            name => write!(EscapedText(&mut self.fields), " {name}={value:?}"),
        };
    }
}

/// Text without control characters, with which a quoted name or message could change the look of a terminal, or begin a
/// line of its own.
struct EscapedText<'a>(&'a mut String);

impl fmt::Write for EscapedText<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if character.is_control() {
                self.0.extend(character.escape_default());
            } else {
                self.0.push(character);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    fn lines_of(most: Level, events: impl FnOnce()) -> Vec<String> {
        let (sink, source) = UnixStream::pair().unwrap();
        let log = LogWriter::to(sink);
        let subscriber = LineSubscriber::new(most, log.clone());
        tracing::subscriber::with_default(subscriber, events);
        log.flush(Duration::from_secs(30));
        drop(log);
        BufReader::new(source).lines().map(Result::unwrap).collect()
    }

    #[test]
    fn a_line_has_the_time_the_level_the_text_and_the_fields() {
        let lines = lines_of(Level::INFO, || {
            tracing::info!(port = 1024, name = "a b", error = %"broken", "listening");
            tracing::warn!("late");
            tracing::debug!("hidden");
        });
        let parts: Vec<_> = lines.iter().map(|line| line.split_at(27)).collect();
        let texts: Vec<_> = parts.iter().map(|(_, text)| *text).collect();
        assert_eq!(texts, ["  INFO listening port=1024 name=\"a b\" error=broken", "  WARN late"]);
        for (time, _) in parts {
            let shape = |c: char| if c.is_ascii_digit() { '0' } else { c };
            assert_eq!(time.chars().map(shape).collect::<String>(), "0000-00-00T00:00:00.000000Z");
        }
    }

    #[test]
    fn control_characters_are_escaped_so_that_an_event_is_one_line() {
        let lines = lines_of(Level::INFO, || {
            tracing::info!(path = %"a\n2026-01-31 ERROR forged\u{9b}31m", "\u{1b}[2J");
        });
        assert_eq!(lines.len(), 1);
        let expected = r"  INFO \u{1b}[2J path=a\n2026-01-31 ERROR forged\u{9b}31m";
        assert_eq!(lines[0].split_at(27).1, expected);
    }
}
