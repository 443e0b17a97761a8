//! Messages of a listener, and their order.

use super::*;
use bytes::Bytes;
use proptest::prelude::*;

fn waiting(connection: u64) -> ChannelMessage {
    control(&ListenerAgentControl::Connection(WaitingConnection { connection, peer: None }))
}

#[test]
fn connections_have_increasing_numbers_and_closed_is_the_last_message() {
    let now = Instant::now();
    let mut client = ListenerClient::new(now);
    for number in [0, 1, 7] {
        let event = client.receive(&waiting(number), now).unwrap();
        let expected = WaitingConnection { connection: number, peer: None };
        assert_eq!(event, ListenerEvent::Connection(expected));
    }
    for number in [7, 3] {
        let error = client.receive(&waiting(number), now);
        assert!(matches!(error, Err(ListenerError::Order(seen)) if seen == number), "{error:?}");
    }
    let closed = control(&ListenerAgentControl::Closed { reason: CloseReason::Left });
    let event = client.receive(&closed, now).unwrap();
    assert_eq!(event, ListenerEvent::Closed(CloseReason::Left));
    assert!(matches!(client.receive(&closed, now), Err(ListenerError::AfterClose)));
}

#[test]
fn silence_and_a_flood_of_heartbeats_are_detected() {
    let now = Instant::now();
    let mut client = ListenerClient::new(now);
    assert!(!client.is_silent(now));
    assert!(client.is_silent(now + FORWARD_SILENCE));
    let heartbeat = control(&ListenerAgentControl::Heartbeat);
    let allowed = (0..5_000).take_while(|_| client.receive(&heartbeat, now).is_ok()).count();
    assert_eq!(allowed, 1_000);
}

#[test]
fn control_messages_have_the_documented_json() {
    let json = |message: ChannelMessage| String::from_utf8(message.payload.to_vec()).unwrap();
    assert_eq!(json(ListenerClient::heartbeat()), r#"{"type":"heartbeat"}"#);
    assert_eq!(json(ListenerClient::leave()), r#"{"type":"leave"}"#);
    assert_eq!(json(ListenerClient::refuse(3)), r#"{"type":"refuse","connection":3}"#);
    assert_eq!(json(waiting(1)), r#"{"type":"connection","connection":1}"#);
    let peer = "127.0.0.1:40000".parse().ok();
    let tcp = ListenerAgentControl::Connection(WaitingConnection { connection: 2, peer });
    let text = r#"{"type":"connection","connection":2,"peer":"127.0.0.1:40000"}"#;
    assert_eq!(json(control(&tcp)), text);
    assert_eq!(serde_json::from_str::<ListenerAgentControl>(text).unwrap(), tcp);
    let later = ChannelMessage { channel: Channel::Control, payload: r#"{"type":"x"}"#.into() };
    assert_eq!(
        decode_control::<ListenerHostControl>(&later).unwrap(),
        ListenerHostControl::Unknown
    );
}

proptest! {
    #[test]
    fn any_messages_are_events_or_errors(messages in prop::collection::vec(any::<(u8, Vec<u8>)>(), 0..40)) {
        let now = Instant::now();
        let mut client = ListenerClient::new(now);
        for (channel, payload) in messages {
            let bytes: Bytes = [&[channel % 5][..], &payload].concat().into();
            let Ok(message) = ChannelMessage::decode(bytes) else { return Ok(()) };
            if client.receive(&message, now).is_err() {
                return Ok(());
            }
        }
    }

    #[test]
    fn numbers_are_reported_exactly_while_they_increase(numbers in prop::collection::vec(0_u64..50, 1..20)) {
        let now = Instant::now();
        let mut client = ListenerClient::new(now);
        let mut last = None;
        for number in numbers {
            let is_accepted = client.receive(&waiting(number), now).is_ok();
            prop_assert_eq!(is_accepted, last.is_none_or(|last| number > last));
            if is_accepted {
                last = Some(number);
            }
        }
    }
}
