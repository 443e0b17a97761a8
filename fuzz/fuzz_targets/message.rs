//! Feeds arbitrary payloads: no panic, and a decoded message is the same after encoding and
//! decoding it again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use minions_proto::announcement::Announcement;
use minions_proto::frame::{MAX_FRAME_LEN, PREFIX_LEN};
use minions_proto::message::{
    Done, ExecAttached, ExecInfo, ExecListed, ExecReply, ForwardAddress, ForwardListening, ForwardOpened, Health, NetworkChanged, NetworkState,
    Quiesced, RestoreOutcome, Status, Thawed, decode_reply, encode_reply, encode_request,
};
use minions_proto::{AgentError, Request};

fn reencoded(request: &Request) -> Vec<u8> {
    match request {
        Request::HealthCheck(call) => encode_request(call),
        Request::ConfigureNetwork(call) => encode_request(call),
        Request::ChangeNetwork(call) => encode_request(&**call),
        Request::NetworkConfirm(call) => encode_request(call),
        Request::ReadNetwork(call) => encode_request(call),
        Request::Exec(call) => encode_request(call),
        Request::ReportStatus(call) => encode_request(call),
        Request::ReportSample(call) => encode_request(call),
        Request::WriteFile(call) => encode_request(call),
        Request::ExecStart(call) => encode_request(&**call),
        Request::ExecAttach(call) => encode_request(call),
        Request::ExecList(call) => encode_request(call),
        Request::ExecInspect(call) => encode_request(call),
        Request::ExecSignal(call) => encode_request(call),
        Request::ExecRemove(call) => encode_request(call),
        Request::SetClock(call) => encode_request(call),
        Request::Power(call) => encode_request(call),
        Request::FileStart(call) => encode_request(&**call),
        Request::ForwardOpen(call) => encode_request(call),
        Request::ForwardListen(call) => encode_request(call),
        Request::ForwardAccept(call) => encode_request(call),
        Request::Quiesce(call) => encode_request(call),
        Request::Thaw(call) => encode_request(call),
        Request::TokenCheck(call) => encode_request(call),
        Request::Restore(call) => encode_request(&**call),
    }
    .expect("a field grows only by its escapes, and it arrived escaped")
}

fuzz_target!(|payload: &[u8]| {
    // A raw control character is encoded as six bytes: stay below the limit of a frame.
    if payload.len() > MAX_FRAME_LEN / 8 {
        return;
    }
    match Request::decode(payload) {
        Ok(request) => {
            if let Request::ConfigureNetwork(network) = &request {
                let _ = network.plan();
            }
            if let Request::ChangeNetwork(network) = &request {
                let _ = network.plan();
            }
            if let Request::FileStart(start) = &request {
                let _ = start.validate();
            }
            if let Request::ForwardOpen(open) = &request
                && let Ok(target) = open.target()
            {
                assert_eq!(target.to_string().parse(), Ok(target));
            }
            if let Request::ForwardListen(listen) = &request
                && let Ok(address) = listen.address()
            {
                assert_eq!(address.to_string().parse::<ForwardAddress>(), Ok(address));
            }
            if let Request::Quiesce(quiesce) = &request {
                let _ = quiesce.ttl_ms();
            }
            if let Request::Restore(restore) = &request {
                let _ = restore.validate();
            }
            if let Request::ExecStart(start) = &request {
                let _ = start.validate();
            }
            let frame = reencoded(&request);
            assert_eq!(Request::decode(&frame[PREFIX_LEN..]).expect("just encoded"), request);
        }
        Err(error) => assert!(AgentError::from(error).code.is_some()),
    }
    if let Ok(announcement) = Announcement::decode(payload) {
        let frame = announcement.encode().expect("at most six times as long as the payload");
        // Escapes can make it longer than an announcement may be.
        if let Ok(again) = Announcement::decode(&frame[PREFIX_LEN..]) {
            assert_eq!(again, announcement);
        }
    }
    let _ = decode_reply::<Done>(payload);
    let _ = decode_reply::<NetworkChanged>(payload);
    let _ = decode_reply::<NetworkState>(payload);
    let _ = decode_reply::<ExecReply>(payload);
    let _ = decode_reply::<Status>(payload);
    let _ = decode_reply::<ExecAttached>(payload);
    let _ = decode_reply::<ExecInfo>(payload);
    let _ = decode_reply::<ExecListed>(payload);
    let _ = decode_reply::<RestoreOutcome>(payload);
    let _ = decode_reply::<ForwardOpened>(payload);
    let _ = decode_reply::<ForwardListening>(payload);
    let _ = decode_reply::<Quiesced>(payload);
    let _ = decode_reply::<Thawed>(payload);
    if let Ok(health) = decode_reply::<Health>(payload) {
        let frame = encode_reply(&health).expect("at most six times as long as the payload");
        assert_eq!(decode_reply::<Health>(&frame[PREFIX_LEN..]).expect("just encoded"), health);
    }
});
