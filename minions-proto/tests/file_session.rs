//! Frozen bytes of file sessions. A change of existing bytes breaks the protocol; additions are welcome.

#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

use bytes::{Bytes, BytesMut};
use minions_proto::file_session::{
    OpenFile, SessionAnswer, SessionMessage, SessionOperation, SessionRequest, SessionResult,
    WriteAt,
};
use minions_proto::message::GuestPath;
use serde::Serialize;

/// Encodes a frame, and checks that docs/PROTOCOL.md shows its bytes.
#[track_caller]
fn session_frame(head: &impl Serialize, data: &'static [u8]) -> Vec<u8> {
    let mut frame = BytesMut::new();
    SessionMessage::new(head, Bytes::from_static(data)).unwrap().encode(&mut frame);
    let documented = include_str!("../../docs/PROTOCOL.md");
    let shown = format!(": {} bytes.\n\n```text\n{}```\n", frame.len(), dump(&frame));
    assert!(documented.contains(&shown), "docs/PROTOCOL.md lacks{shown}");
    frame.to_vec()
}

/// Returns lines with an offset, 16 bytes and their text.
fn dump(bytes: &[u8]) -> String {
    let line = |(number, line): (usize, &[u8])| {
        let hex = |part: &[u8]| part.iter().map(|byte| format!("{byte:02x} ")).collect::<String>();
        let (first, second) = line.split_at(line.len().min(8));
        let hex = format!("{} {}", hex(first), hex(second));
        let is_shown = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
        let text = line.iter().map(|&byte| if is_shown(byte) { char::from(byte) } else { '.' });
        format!("{:04x}  {:<48} |{}|\n", number * 16, hex.trim_end(), text.collect::<String>())
    };
    bytes.chunks(16).enumerate().map(line).collect()
}

/// Frames of a file session, as in the section of docs/PROTOCOL.md about it.
#[test]
fn file_session_frames() {
    let open = SessionOperation::Open(OpenFile {
        path: GuestPath::new(b"motd"),
        write: true,
        create: true,
        mode: Some(0o640),
        ..OpenFile::default()
    });
    let bytes = session_frame(&SessionRequest { id: 1, operation: open }, b"");
    assert_eq!(
        bytes,
        b"\0\0\0\x8b\0\0\0\x87{\"id\":1,\"op\":\"open\",\"path\":\"motd\",\"read\":false,\"write\":true,\
          \"create\":true,\"exclusive\":false,\"truncate\":false,\"append\":false,\"mode\":416}"
    );
    let opened = SessionAnswer { id: 1, result: SessionResult::Handle { handle: 0 } };
    let bytes = session_frame(&opened, b"");
    assert_eq!(bytes, b"\0\0\0\x29\0\0\0\x25{\"id\":1,\"result\":\"handle\",\"handle\":0}");
    let write = SessionOperation::Write(WriteAt { handle: 0, offset: 5 });
    let bytes = session_frame(&SessionRequest { id: 2, operation: write }, b"hi\n");
    assert_eq!(
        bytes,
        b"\0\0\0\x32\0\0\0\x2b{\"id\":2,\"op\":\"write\",\"handle\":0,\"offset\":5}hi\n"
    );
    let bytes = session_frame(&SessionAnswer { id: 2, result: SessionResult::Done }, b"");
    assert_eq!(bytes, b"\0\0\0\x1c\0\0\0\x18{\"id\":2,\"result\":\"done\"}");
}

/// Operations and results of a file session, as in the tables of docs/PROTOCOL.md.
#[test]
fn file_session_heads() {
    for json in [
        r#"{"op":"close","handle":3}"#,
        r#"{"op":"read","handle":3,"offset":9,"length":4096}"#,
        r#"{"op":"stat","path":"/a","follow":true}"#,
        r#"{"op":"fstat","handle":3}"#,
        r#"{"op":"setstat","path":"/a","follow":true,"size":1,"mode":420,"uid":1,"gid":2,"atime_ns":-1,"mtime_ns":5}"#,
        r#"{"op":"fsetstat","handle":3,"mode":420}"#,
        r#"{"op":"opendir","path":"."}"#,
        r#"{"op":"readdir","handle":3}"#,
        r#"{"op":"mkdir","path":"a","mode":493}"#,
        r#"{"op":"rmdir","path":"a"}"#,
        r#"{"op":"remove","path":"\ufffd","path_base64":"/w=="}"#,
        r#"{"op":"rename","path":"a","to":"b","replace":true}"#,
        r#"{"op":"symlink","path":"link","to":"target"}"#,
        r#"{"op":"link","path":"a","to":"b"}"#,
        r#"{"op":"readlink","path":"link"}"#,
        r#"{"op":"realpath","path":"."}"#,
        r#"{"op":"fsync","handle":3}"#,
        r#"{"op":"statvfs","path":"/"}"#,
        r#"{"op":"fstatvfs","handle":3}"#,
    ] {
        let operation: SessionOperation = serde_json::from_str(json).unwrap();
        let again = serde_json::to_string(&operation).unwrap();
        assert_eq!(again, json.replace("\\ufffd", "\u{fffd}"));
        let with_id = format!("{{\"id\":5,{}", &json[1..]);
        let (id, decoded) = SessionRequest::decode(with_id.as_bytes()).unwrap();
        assert_eq!((id, decoded.unwrap()), (5, operation));
    }
    for json in [
        r#"{"id":1,"result":"data"}"#,
        r#"{"id":1,"result":"metadata","type":"file","size":3,"mode":420,"uid":0,"gid":0,"nlink":1,"atime_ns":1,"mtime_ns":2}"#,
        r#"{"id":1,"result":"entries","entries":[{"name":"."},{"name":"a","metadata":{"type":"symlink","size":1,"mode":511,"uid":0,"gid":0,"nlink":1,"atime_ns":1,"mtime_ns":2}}]}"#,
        r#"{"id":1,"result":"path","path":"/root"}"#,
        r#"{"id":1,"result":"space","block_size":4096,"fragment_size":4096,"blocks":10,"blocks_free":9,"blocks_available":8,"files":7,"files_free":6,"files_available":5,"filesystem_id":3,"read_only":false,"no_set_id":true,"name_max":255}"#,
        r#"{"id":1,"result":"failed","errno":"ENOENT","path":"/a","step":"open","message":"open \"/a\": No such file or directory (os error 2)"}"#,
    ] {
        let answer: SessionAnswer = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&answer).unwrap(), json);
    }
}
