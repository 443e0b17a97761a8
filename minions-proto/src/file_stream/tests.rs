//! Lines in any chunking.

use super::*;
use proptest::prelude::*;

fn metadata() -> FileMetadata {
    FileMetadata {
        kind: FileKind::File,
        size: 5,
        mode: 0o644,
        uid: 0,
        gid: 0,
        nlink: 1,
        mtime_ns: 1_700_000_000_000_000_001,
        etag: "1-2-5".into(),
        target: None,
        target_base64: None,
    }
}

#[test]
fn lines_have_the_documented_json() {
    let header = FileHeader { offset: Some(0), length: Some(5), ..metadata().into() };
    let json = r#"{"type":"file","size":5,"mode":420,"uid":0,"gid":0,"nlink":1,"mtime_ns":1700000000000000001,"etag":"1-2-5","offset":0,"length":5}"#;
    assert_eq!(serde_json::to_string(&header).unwrap(), json);
    assert_eq!(serde_json::from_str::<FileHeader>(json).unwrap(), header);
    let failure = FileFailure {
        errno: "ENOENT".into(),
        path: "/a".into(),
        path_base64: None,
        step: "open".into(),
        message: "cannot open \"/a\"".into(),
        warning: false,
    };
    let json = r#"{"errno":"ENOENT","path":"/a","step":"open","message":"cannot open \"/a\""}"#;
    assert_eq!(serde_json::to_string(&failure).unwrap(), json);
    assert_eq!(serde_json::from_str::<FileFailure>(json).unwrap(), failure);
    let moved = FileEvent::new(FileEventKind::Moved, b"/a\xff", Some(b"/b"), false);
    let json = "{\"event\":\"moved\",\"path\":\"/a\u{fffd}\",\"path_base64\":\"L2H/\",\"to\":\"/b\",\"directory\":false}";
    assert_eq!(serde_json::to_string(&moved).unwrap(), json);
    assert_eq!(serde_json::from_str::<FileEvent>(json).unwrap(), moved);
}

#[test]
fn a_line_without_an_end_is_an_error_before_it_uses_memory() {
    let mut lines = LineDecoder::default();
    lines.extend(&vec![b'x'; MAX_LINE_LEN]);
    assert!(lines.next_line().unwrap().is_none());
    lines.extend(b"x");
    assert!(matches!(lines.next_line(), Err(FileStreamError::TooLong)));
}

proptest! {
    #[test]
    fn header_and_data_are_separated_in_any_chunking(
        data in any::<Vec<u8>>(),
        cuts in prop::collection::vec(1_usize..40, 1..20),
    ) {
        let header = FileHeader::from(metadata());
        let mut stream = serde_json::to_vec(&header).unwrap();
        stream.push(b'\n');
        stream.extend_from_slice(&data);
        let (mut lines, mut left, mut cuts) = (LineDecoder::default(), &stream[..], cuts.iter().cycle());
        let found = loop {
            if let Some(header) = lines.next_json::<FileHeader>().unwrap() {
                break header;
            }
            let (chunk, rest) = left.split_at(left.len().min(*cuts.next().unwrap()));
            lines.extend(chunk);
            left = rest;
        };
        prop_assert_eq!(found, header);
        let rest = [&lines.into_rest()[..], left].concat();
        prop_assert_eq!(rest, data);
    }

    #[test]
    fn names_of_any_bytes_arrive_unchanged(name in prop::collection::vec(1_u8.., 1..100)) {
        let entry = DirectoryEntry::new(&name, metadata());
        let json = serde_json::to_vec(&entry).unwrap();
        let back: DirectoryEntry = serde_json::from_slice(&json).unwrap();
        prop_assert_eq!(back.name_bytes().unwrap(), name);
    }
}
