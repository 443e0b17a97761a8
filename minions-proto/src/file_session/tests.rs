//! Frames, requests and answers of a file session.

use super::*;
use crate::file_stream::{FileFailure, FileKind};
use crate::message::{GuestPath, GuestTarget, MAX_PATH_LEN};
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

fn decoded(stream: &[u8], chunk: usize) -> Result<Vec<SessionMessage>, SessionFrameError> {
    let mut decoder = SessionDecoder::default();
    let mut messages = Vec::new();
    for part in stream.chunks(chunk) {
        decoder.extend(part);
        while let Some(message) = decoder.next_message()? {
            messages.push(message);
        }
    }
    assert!(decoder.is_empty());
    Ok(messages)
}

fn first_error(stream: &[u8]) -> String {
    decoded(stream, 1).unwrap_err().to_string()
}

#[test]
fn a_length_outside_of_its_bounds_is_refused_before_the_frame_arrives() {
    assert_eq!(MAX_CONTENT_LEN, 327_684);
    for len in [0_u32, 4, 327_685, u32::MAX] {
        let error = first_error(&len.to_be_bytes());
        assert_eq!(error, format!("frame of {len} bytes: must have 5 to 327684"));
    }
    let empty_head = [&[0, 0, 0, 5][..], &[0, 0, 0, 0], b"x"].concat();
    assert_eq!(
        first_error(&empty_head),
        "head of 0 bytes: must have 1 to 65536, and fit in its frame"
    );
    let beyond_its_frame = [&[0, 0, 0, 6][..], &[0, 0, 0, 3], b"{}"].concat();
    assert!(first_error(&beyond_its_frame).starts_with("head of 3 bytes"));
    let mut long_head = vec![0, 1, 0, 5, 0, 1, 0, 1];
    long_head.resize(8 + MAX_HEAD_LEN + 1, b' ');
    assert!(first_error(&long_head).starts_with("head of 65537 bytes"));
    let mut long_data = vec![0, 4, 0, 7, 0, 0, 0, 2, b'{', b'}'];
    long_data.resize(10 + MAX_DATA_LEN + 1, 0);
    assert_eq!(first_error(&long_data), "data of 262145 bytes: must have at most 262144");
}

#[test]
fn a_message_beyond_the_bounds_is_not_encoded() {
    let head = SessionHandle { handle: 1 };
    let data = Bytes::from(vec![0; MAX_DATA_LEN + 1]);
    assert!(SessionMessage::new(&head, data.slice(1..)).is_ok());
    let error = SessionMessage::new(&head, data).unwrap_err();
    assert!(matches!(error, SessionFrameError::DataLength { len: 262_145 }), "{error}");
}

/// The longest paths, in the bytes whose JSON is longest.
#[test]
fn the_longest_paths_fit_into_a_head() {
    for path in [vec![1; MAX_PATH_LEN], vec![0xff; MAX_PATH_LEN], {
        let mut path = vec![1; MAX_PATH_LEN];
        path[0] = 0xff;
        path
    }] {
        let operation = SessionOperation::Rename(RenameEntry {
            path: GuestPath::new(&path),
            to: GuestTarget::new(&path),
            replace: true,
        });
        let request = SessionRequest { id: u64::MAX, operation };
        let message = SessionMessage::new(&request, Bytes::new()).unwrap();
        let (id, operation) = SessionRequest::decode(&message.head).unwrap();
        let SessionOperation::Rename(rename) = operation.unwrap() else { panic!("not a rename") };
        assert_eq!((id, rename.path.bytes_of_any().unwrap()), (u64::MAX, path.clone()));
        assert_eq!(rename.to.bytes_of_any().unwrap(), path);
        let GuestPath { path: text, path_base64 } = GuestPath::new(&path);
        let message = format!("open {text:?}: File name too long (os error 36)");
        let result = SessionResult::Failed(FileFailure {
            errno: "ENAMETOOLONG".into(),
            path: text,
            path_base64,
            step: "open".into(),
            message,
            warning: false,
        });
        let answer = SessionAnswer { id: u64::MAX, result };
        let message = SessionMessage::new(&answer, Bytes::new()).unwrap();
        assert_eq!(message.head::<SessionAnswer>().unwrap(), answer);
    }
}

#[test]
fn a_malformed_operation_keeps_its_number_and_an_unknown_one_is_recognised() {
    for head in [
        r#"{"id":7,"op":"open"}"#,
        r#"{"id":7,"op":"read","handle":-1,"offset":0,"length":1}"#,
        r#"{"id":7}"#,
    ] {
        let (id, operation) = SessionRequest::decode(head.as_bytes()).unwrap();
        // `open` without a path is decoded, as in other operations, and then refused for its path.
        assert_eq!((id, operation.is_err()), (7, !head.contains("open")), "{head}");
    }
    let unknown = SessionRequest::decode(br#"{"id":8,"op":"teleport","to":[1]}"#).unwrap();
    assert_eq!((unknown.0, unknown.1.unwrap()), (8, SessionOperation::Unknown));
    for head in ["", "[]", r#"{"op":"close","handle":1}"#, r#"{"id":-1,"op":"close"}"#] {
        assert!(SessionRequest::decode(head.as_bytes()).is_err(), "{head}");
    }
}

#[test]
fn a_path_may_be_relative_but_has_no_nul_and_a_maximum_length() {
    let of = |path: &[u8]| GuestPath::new(path).bytes_of_any();
    assert_eq!(of(b"a/b").unwrap(), b"a/b");
    assert_eq!(of(b"").unwrap_err().field, "path");
    assert_eq!(of(b"a\0b").unwrap_err().field, "path");
    assert_eq!(of(&[b'x'; MAX_PATH_LEN + 1]).unwrap_err().field, "path");
    let invalid = GuestTarget { to: String::new(), to_base64: Some("!".into()) };
    assert_eq!(invalid.bytes_of_any().unwrap_err().field, "to_base64");
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_messages(
        messages in prop::collection::vec(
            (any::<u32>(), prop::collection::vec(any::<u8>(), 0..400)), 1..6),
        chunk in 1_usize..700,
    ) {
        let messages: Vec<_> = messages
            .into_iter()
            .map(|(handle, data)| SessionMessage::new(&SessionHandle { handle }, data.into()).unwrap())
            .collect();
        let mut stream = BytesMut::new();
        for message in &messages {
            message.encode(&mut stream);
            prop_assert_eq!(&SessionMessage::decode(message.content()).unwrap(), message);
        }
        prop_assert_eq!(decoded(&stream, chunk).unwrap(), messages);
    }

    #[test]
    fn junk_is_refused_or_incomplete_and_never_larger_than_the_limits(
        junk in prop::collection::vec(any::<u8>(), 0..2000),
    ) {
        let mut decoder = SessionDecoder::default();
        decoder.extend(&junk);
        while let Ok(Some(message)) = decoder.next_message() {
            prop_assert!(message.head.len() <= MAX_HEAD_LEN && message.data.len() <= MAX_DATA_LEN);
        }
    }

    #[test]
    fn entries_of_any_name_arrive_unchanged(name in prop::collection::vec(1_u8.., 1..255)) {
        let metadata = SessionMetadata {
            kind: FileKind::Symlink,
            size: u64::MAX,
            mode: 0o7777,
            uid: u32::MAX,
            gid: u32::MAX,
            nlink: u64::MAX,
            atime_ns: i64::MIN,
            mtime_ns: i64::MAX,
        };
        let entries = vec![SessionEntry::new(&name, Some(metadata)), SessionEntry::new(b".", None)];
        let answer = SessionAnswer { id: 1, result: SessionResult::Entries { entries } };
        let message = SessionMessage::new(&answer, Bytes::new()).unwrap();
        let back: SessionAnswer = message.head().unwrap();
        prop_assert_eq!(&back, &answer);
        let SessionResult::Entries { entries } = back.result else { panic!("no entries") };
        prop_assert_eq!(entries[0].name_bytes().unwrap(), name);
    }
}
