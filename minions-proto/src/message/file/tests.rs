//! Validation of file operations.

use super::*;
use crate::Request;
use proptest::prelude::*;

fn invalid(op: &str) -> String {
    let json = format!(r#"{{"type":"file_start","op":{op}}}"#);
    let Ok(Request::FileStart(start)) = Request::decode(json.as_bytes()) else {
        panic!("not a file_start: {json}")
    };
    start.validate().unwrap_err().field
}

#[test]
fn values_that_no_guest_accepts_are_rejected_with_their_field() {
    let long = format!(r#"{{"op":"stat","path":"/{}"}}"#, "x".repeat(4095));
    for (field, op) in [
        ("op.path", r#"{"op":"stat"}"#),
        ("op.path", r#"{"op":"stat","path":"relative"}"#),
        ("op.path", r#"{"op":"stat","path":"/a\u0000b"}"#),
        ("op.path", &long),
        ("op.path_base64", r#"{"op":"stat","path":"/a","path_base64":"!"}"#),
        ("op.path_base64", r#"{"op":"stat","path_base64":"YQ=="}"#),
        ("op.path", r#"{"op":"write","path":"/a/"}"#),
        ("op.path", r#"{"op":"write","path":"/a/.."}"#),
        ("op.mode", r#"{"op":"write","path":"/a","mode":4096}"#),
        ("op.mode", r#"{"op":"mkdir","path":"/a","mode":4096}"#),
        ("op.owner", r#"{"op":"write","path":"/a","owner":""}"#),
        ("op.if_match", r#"{"op":"write","path":"/a","if_match":""}"#),
        ("op.create_only", r#"{"op":"write","path":"/a","if_match":"x","create_only":true}"#),
        ("op.to", r#"{"op":"rename","path":"/a","to":"b"}"#),
        ("op.offset", r#"{"op":"read","path":"/a","offset":9223372036854775808}"#),
        ("op.length", r#"{"op":"read","path":"/a","length":9223372036854775808}"#),
    ] {
        assert_eq!(invalid(op), field, "{op}");
    }
}

#[test]
fn only_operations_with_input_take_input() {
    let path = || GuestPath::new(b"/a");
    assert!(FileOperation::Write(WriteStream { path: path(), ..Default::default() }).takes_input());
    assert!(FileOperation::TarIn(UnpackTree { path: path(), ..Default::default() }).takes_input());
    assert!(FileOperation::Session(ServeSession {}).takes_input());
    assert!(!FileOperation::Read(ReadFile { path: path(), ..Default::default() }).takes_input());
}

proptest! {
    #[test]
    fn a_path_of_any_bytes_arrives_unchanged(tail in prop::collection::vec(1_u8.., 0..200)) {
        let path = [b"/", &tail[..]].concat();
        let op = FileOperation::Rename(RenameFile {
            path: GuestPath::new(&path),
            to: GuestTarget::new(&path),
            no_replace: false,
        });
        let json = serde_json::to_vec(&op).unwrap();
        let back: FileOperation = serde_json::from_slice(&json).unwrap();
        prop_assert_eq!(&back, &op);
        let FileOperation::Rename(rename) = back else { panic!("another operation") };
        prop_assert_eq!(rename.path.bytes().unwrap(), path.clone());
        prop_assert_eq!(rename.to.bytes().unwrap(), path);
    }
}
