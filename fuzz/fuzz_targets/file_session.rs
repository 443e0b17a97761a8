//! Feeds arbitrary bytes to the decoders of file sessions: no panic, nothing beyond the limits, the same messages for
//! every chunking, and each decoded head is the same after encoding and decoding it again.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use minions_proto::file_session::{
    MAX_DATA_LEN, MAX_HEAD_LEN, SessionAnswer, SessionDecoder, SessionMessage, SessionRequest,
    SessionResult,
};

fn messages(bytes: &[u8], chunk: usize) -> (Vec<SessionMessage>, bool) {
    let mut decoder = SessionDecoder::default();
    let mut messages = Vec::new();
    for part in bytes.chunks(chunk) {
        decoder.extend(part);
        loop {
            match decoder.next_message() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(_) => return (messages, false),
            }
        }
    }
    (messages, true)
}

fn request(head: &[u8]) {
    let Ok((id, Ok(operation))) = SessionRequest::decode(head) else { return };
    let again = SessionMessage::new(&SessionRequest { id, operation: operation.clone() }, Bytes::new());
    let Ok(again) = again else { return };
    let (id_again, decoded) = SessionRequest::decode(&again.head).expect("just encoded");
    assert_eq!((id_again, decoded.expect("just encoded")), (id, operation));
}

fn answer(message: &SessionMessage) {
    let Ok(answer) = message.head::<SessionAnswer>() else { return };
    match &answer.result {
        SessionResult::Entries { entries } => {
            for entry in entries {
                let _ = entry.name_bytes();
            }
        }
        SessionResult::Path(path) => {
            let _ = path.bytes();
        }
        _ => {}
    }
    let Ok(again) = SessionMessage::new(&answer, Bytes::new()) else { return };
    assert_eq!(again.head::<SessionAnswer>().expect("just encoded"), answer);
}

fuzz_target!(|input: (u16, Vec<u8>)| {
    let (chunk, bytes) = input;
    let (found, is_whole) = messages(&bytes, usize::from(chunk) + 1);
    assert_eq!(messages(&bytes, bytes.len().max(1)), (found.clone(), is_whole));
    let mut encoded = BytesMut::new();
    for message in &found {
        assert!(message.head.len() <= MAX_HEAD_LEN && message.data.len() <= MAX_DATA_LEN);
        message.encode(&mut encoded);
        request(&message.head);
        answer(message);
    }
    assert!(bytes.starts_with(&encoded));
    request(&bytes);
});
