//! Order of messages in a forward.

use super::*;
use crate::channel::HostControl;
use proptest::prelude::*;

fn from_target(payload: &'static [u8]) -> ChannelMessage {
    ChannelMessage { channel: Channel::Stdout, payload: Bytes::from_static(payload) }
}

#[test]
fn each_direction_ends_once_and_closed_is_the_last_message() {
    let now = Instant::now();
    let mut client = ForwardClient::new(now);
    let mut bytes = Bytes::from(vec![7; CHUNK_LEN + 1]);
    assert_eq!(client.send(&mut bytes).unwrap().payload.len(), CHUNK_LEN);
    assert_eq!(client.send(&mut bytes).unwrap().payload.len(), 1);
    assert_eq!(client.send(&mut bytes), None);
    assert!(client.end().unwrap().payload.is_empty());
    assert_eq!(client.end(), None);
    assert_eq!(client.send(&mut Bytes::from_static(b"late")), None);

    let data = ForwardEvent::Data(Bytes::from_static(b"x"));
    assert_eq!(client.receive(from_target(b"x"), now).unwrap(), data);
    assert_eq!(client.receive(from_target(b""), now).unwrap(), ForwardEvent::TargetEnded);
    assert!(matches!(client.receive(from_target(b"x"), now), Err(ForwardError::AfterEnd)));
    let closed = || control(&ForwardAgentControl::Closed { reason: CloseReason::Ended });
    let event = client.receive(closed(), now).unwrap();
    assert_eq!(event, ForwardEvent::Closed(CloseReason::Ended));
    assert!(matches!(client.receive(closed(), now), Err(ForwardError::AfterClose)));
}

#[test]
fn silence_and_a_flood_of_heartbeats_are_detected() {
    let now = Instant::now();
    let mut client = ForwardClient::new(now);
    assert!(!client.is_silent(now));
    assert!(client.is_silent(now + FORWARD_SILENCE));
    let heartbeat = || control(&ForwardAgentControl::Heartbeat);
    let allowed = (0..5_000).take_while(|_| client.receive(heartbeat(), now).is_ok()).count();
    assert_eq!(allowed, 1_000);
}

#[test]
fn control_messages_have_the_documented_json() {
    let json = |message: ChannelMessage| String::from_utf8(message.payload.to_vec()).unwrap();
    assert_eq!(json(ForwardClient::heartbeat()), r#"{"type":"heartbeat"}"#);
    assert_eq!(json(ForwardClient::leave()), r#"{"type":"leave"}"#);
    let closed = control(&ForwardAgentControl::Closed { reason: CloseReason::HostSilent });
    assert_eq!(json(closed), r#"{"type":"closed","reason":"host_silent"}"#);
    let later = ChannelMessage::host(&HostControl::Resize { rows: 1, cols: 1 });
    assert_eq!(decode_control::<ForwardHostControl>(&later).unwrap(), ForwardHostControl::Unknown);
    let reason = br#"{"type":"closed","reason":"from_the_future"}"#;
    let message = ChannelMessage { channel: Channel::Control, payload: reason[..].into() };
    assert_eq!(
        decode_control::<ForwardAgentControl>(&message).unwrap(),
        ForwardAgentControl::Closed { reason: CloseReason::Other }
    );
}

proptest! {
    #[test]
    fn any_messages_are_events_or_errors(messages in prop::collection::vec(any::<(u8, Vec<u8>)>(), 0..40)) {
        let now = Instant::now();
        let mut client = ForwardClient::new(now);
        let mut received = 0;
        for (channel, payload) in messages {
            let bytes = [&[channel % 5][..], &payload].concat();
            let Ok(message) = ChannelMessage::decode(bytes.into()) else { return Ok(()) };
            match client.receive(message, now) {
                Ok(ForwardEvent::Data(bytes)) => received += bytes.len(),
                Ok(_) => {}
                Err(_) => return Ok(()),
            }
        }
        prop_assert!(received < 1 << 20);
    }
}
