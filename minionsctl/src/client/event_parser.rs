//! Parser of Server-Sent Events (WHATWG HTML, section 9.2.6), fed line by line.
//!
//! A hostile server must not be able to fill the memory, so an event has a maximum length. The crates that parse
//! event streams have no such limit.

/// Event before its data is decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RawEvent {
    /// Field `event`; empty if it is absent.
    pub(super) kind: String,
    /// Fields `data`, joined by newlines.
    pub(super) data: String,
}

/// Failure for an event with more data than the maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EventTooLong;

/// State of the parser.
#[derive(Debug)]
pub(super) struct EventParser {
    /// Field `event` of the event being read.
    kind: String,
    /// Fields `data` of the event being read, each with a newline at its end.
    data: String,
    /// Last field `id`, including that of the event being read.
    id: Option<String>,
    /// Field `id` at the last complete event.
    last_id: Option<String>,
    /// Maximum length of `data`, in bytes.
    max_len: usize,
}

impl EventParser {
    /// Creates a parser for a stream that resumes after the event with the id `last_id`.
    pub(super) fn new(last_id: Option<String>, max_len: usize) -> Self {
        Self { kind: String::new(), data: String::new(), id: last_id.clone(), last_id, max_len }
    }

    /// Returns the id of the last complete event. Resuming after an incomplete one would lose it.
    pub(super) fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// Parses a line without its end. Returns the event that it completes.
    ///
    /// # Errors
    ///
    /// [`EventTooLong`]. The stream cannot be used any more.
    pub(super) fn line(&mut self, line: &str) -> Result<Option<RawEvent>, EventTooLong> {
        if line.is_empty() {
            return Ok(self.complete());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            "event" => value.clone_into(&mut self.kind),
            "data" if self.data.len() + value.len() >= self.max_len => return Err(EventTooLong),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            // A comment, which is a field without a name; `retry`; or a field of a later version.
            _ => {}
        }
        Ok(None)
    }

    /// Ends the event being read. An event without data only sets the id.
    fn complete(&mut self) -> Option<RawEvent> {
        self.last_id.clone_from(&self.id);
        let kind = std::mem::take(&mut self.kind);
        let mut data = std::mem::take(&mut self.data);
        // The newline after the last field is not part of the data.
        data.pop().map(|_| RawEvent { kind, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses the lines, and returns the complete events as `(kind, data)`.
    fn events(parser: &mut EventParser, text: &str) -> Vec<(String, String)> {
        let events = text.split_terminator('\n').filter_map(|line| parser.line(line).unwrap());
        events.map(|event| (event.kind, event.data)).collect()
    }

    fn parsed(text: &str) -> Vec<(String, String)> {
        events(&mut EventParser::new(None, 100), text)
    }

    #[test]
    fn data_fields_are_joined_by_newlines() {
        let event = |kind: &str, data: &str| vec![(kind.to_owned(), data.to_owned())];
        assert_eq!(parsed("data: a\ndata:b\ndata\ndata:  c\n\n"), event("", "a\nb\n\n c"));
        assert_eq!(parsed("event: k\ndata: {\"a\":1}\n\n"), event("k", "{\"a\":1}"));
        assert_eq!(parsed("data\n\n"), event("", ""));
    }

    #[test]
    fn comments_unknown_fields_and_incomplete_events_are_ignored() {
        assert_eq!(parsed(": c\n:\nretry: 1\nnew: 2\n\n\ndata: a"), []);
        let twice = parsed("event: lost\n\ndata: a\n\ndata: b\n\n");
        assert_eq!(twice, [("", "a"), ("", "b")].map(|(kind, data)| (kind.into(), data.into())));
    }

    #[test]
    fn the_last_id_is_that_of_the_last_complete_event() {
        let mut parser = EventParser::new(Some("7".into()), 100);
        events(&mut parser, ": c\n\n");
        assert_eq!(parser.last_id(), Some("7"));
        events(&mut parser, "id: 8\ndata: a\n\ndata: has none\n\nid: 9\ndata: b\n");
        assert_eq!(parser.last_id(), Some("8"));
        events(&mut parser, "\nid: 1\0\ndata: c\n\n");
        assert_eq!(parser.last_id(), Some("9"));
    }

    #[test]
    fn an_event_has_a_maximum_length() {
        let mut parser = EventParser::new(None, 10);
        for line in ["data: 1234", "data: 5678"] {
            assert_eq!(parser.line(line), Ok(None));
        }
        assert_eq!(parser.line("data"), Err(EventTooLong));
        let mut parser = EventParser::new(None, 10);
        assert_eq!(events(&mut parser, "data: 123456789\n\n").len(), 1, "9 bytes and a newline");
        assert_eq!(parser.line("data: 1234567890"), Err(EventTooLong));
    }
}
