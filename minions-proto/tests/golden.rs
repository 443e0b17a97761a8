//! Frozen bytes of the base protocol, and of each request that was added since.
//!
//! Agents and host tools that send and expect exactly these bytes are in the field. A change of
//! existing bytes breaks the protocol, even if all other tests pass; additions are welcome.

#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

use bytes::BytesMut;
use minions_proto::announcement::{Announcement, InvalidAnnouncement, MAX_ANNOUNCEMENT_LEN};
use minions_proto::channel::{CHUNK_LEN, Channel, ChannelMessage};
use minions_proto::error::{AgentError, ErrorCode};
use minions_proto::forward::control;
use minions_proto::forward_listener::{ListenerAgentControl, ListenerClient, WaitingConnection};
use minions_proto::frame::encode;
use minions_proto::message::{
    ConfigureNetwork, Done, EntropyBytes, Exec, ExecAttached, ExecReply, ExecStart, FileOperation,
    FileStart, ForwardAccept, ForwardListen, ForwardListening, ForwardOpen, ForwardOpened,
    FrozenFilesystem, GuestPath, GuestTarget, Health, HealthCheck, HookRun, ListenerId, Power,
    PowerAction, Quiesce, Quiesced, ReadFile, RenameFile, ReplyError, ReportStatus, RestoreOutcome,
    RestoreRequest, RestoreState, RestoreStep, SetClock, Status, Thaw, Thawed, TokenCheck,
    WriteFile, WriteStream, decode_reply, encode_error, encode_reply, encode_request,
};
use minions_proto::{AgentPort, Call, Request};

#[test]
fn a_channel_message_is_a_frame_with_its_channel_first() {
    for (channel, number) in
        [(Channel::Stdin, 0), (Channel::Stdout, 1), (Channel::Stderr, 2), (Channel::Control, 3)]
    {
        let message = ChannelMessage { channel, payload: "hello".into() };
        let mut frame = BytesMut::new();
        message.encode(&mut frame);
        assert_eq!(frame[..], [0, 0, 0, 6, number, b'h', b'e', b'l', b'l', b'o']);
        assert_eq!(message.to_bytes()[..], frame[4..]);
        assert_eq!(ChannelMessage::decode(frame.freeze().slice(4..)).unwrap(), message);
    }
    let end = ChannelMessage { channel: Channel::Stdin, payload: "".into() };
    let mut frame = BytesMut::new();
    end.encode(&mut frame);
    assert_eq!(frame[..], [0, 0, 0, 1, 0]);
    assert_eq!(CHUNK_LEN, 65_536);
}

fn network() -> ConfigureNetwork {
    ConfigureNetwork {
        ip: "10.0.0.2/16".into(),
        gateway: "10.0.0.1".into(),
        dns: vec!["1.1.1.1".into()],
    }
}

fn ping() -> Exec {
    Exec {
        command: "ping".into(),
        args: vec!["-c".into(), "3".into(), "1.1.1.1".into()],
        timeout_ms: None,
    }
}

fn key() -> WriteFile {
    WriteFile {
        path: "/root/.ssh/authorized_keys".into(),
        content: "ssh-ed25519 AAAA\n".into(),
        mode: Some(384),
        append: false,
    }
}

/// Asserts that the request is encoded as these bytes, and that they decode to the request.
#[track_caller]
fn request<C: Call>(call: &C, decoded: &Request, bytes: &[u8]) {
    let encoded = encode_request(call).unwrap();
    assert_eq!(encoded.escape_ascii().to_string(), bytes.escape_ascii().to_string());
    assert_eq!(&Request::decode(&bytes[4..]).unwrap(), decoded);
}

#[test]
fn health_check_request() {
    request(
        &HealthCheck {},
        &Request::HealthCheck(HealthCheck {}),
        b"\x00\x00\x00\x17{\"type\":\"health_check\"}",
    );
}

#[test]
fn generation_requests_and_replies() {
    let probe = TokenCheck { vmm_token: "0f1e".parse().unwrap() };
    request(
        &probe,
        &Request::TokenCheck(probe.clone()),
        b"\x00\x00\x00\x2a{\"type\":\"health_check\",\"vmm_token\":\"0f1e\"}",
    );
    let restore = RestoreRequest {
        parent: "p-1".into(),
        instance_id: "i-2".into(),
        entropy: EntropyBytes::try_from(vec![0; 32]).unwrap(),
        time_unix_ms: 1_795_000_000_000,
        steps: vec!["entropy".into(), "clock".into()],
        required: vec!["entropy".into()],
        hostname: Some("web-2".into()),
        network: None,
        hook_timeout_ms: Some(30_000),
    };
    request(
        &restore,
        &Request::Restore(Box::new(restore.clone())),
        b"\x00\x00\x00\xe9{\"type\":\"restore\",\"parent\":\"p-1\",\"instance_id\":\"i-2\",\
          \"entropy\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\",\"time_unix_ms\":1795000000000,\
          \"steps\":[\"entropy\",\"clock\"],\"required\":[\"entropy\"],\"hostname\":\"web-2\",\
          \"hook_timeout_ms\":30000}",
    );
    let step =
        RestoreStep { step: "entropy".into(), ok: true, detail: "32 bytes".into(), duration_ms: 1 };
    let restored = RestoreOutcome {
        state: RestoreState::Done,
        generation: 1,
        instance_id: "i-2".into(),
        parent_instance_id: "p-1".into(),
        steps: vec![step],
    };
    let reply = encode_reply(&restored).unwrap();
    assert_eq!(
        reply.escape_ascii().to_string(),
        b"\x00\x00\x00\xa7{\"status\":\"ok\",\"state\":\"done\",\"generation\":1,\"instance_id\":\"i-2\",\
          \"parent_instance_id\":\"p-1\",\"steps\":[{\"step\":\"entropy\",\"ok\":true,\
          \"detail\":\"32 bytes\",\"duration_ms\":1}]}"
            .escape_ascii()
            .to_string()
    );
    assert_eq!(decode_reply::<RestoreOutcome>(&reply[4..]).unwrap(), restored);
}

#[test]
fn a_health_check_with_an_invalid_token_is_refused_and_names_it() {
    for token in ["\"\"", "\"a b\"", "7", &format!("\"{}\"", "x".repeat(65))] {
        let request = format!(r#"{{"type":"health_check","vmm_token":{token}}}"#);
        let error = AgentError::from(Request::decode(request.as_bytes()).unwrap_err());
        assert_eq!(error.code, Some(ErrorCode::BadRequest), "{token}");
    }
    let plain = br#"{"type":"health_check","vmm_token":null}"#;
    assert_eq!(Request::decode(plain).unwrap(), Request::HealthCheck(HealthCheck {}));
}

#[test]
fn configure_network_request() {
    request(
        &network(),
        &Request::ConfigureNetwork(network()),
        b"\x00\x00\x00\x56{\"type\":\"configure_network\",\"ip\":\"10.0.0.2/16\",\
          \"gateway\":\"10.0.0.1\",\"dns\":[\"1.1.1.1\"]}",
    );
}

#[test]
fn exec_request() {
    request(
        &ping(),
        &Request::Exec(ping()),
        b"\x00\x00\x00\x3c{\"type\":\"exec\",\"command\":\"ping\",\"args\":[\"-c\",\"3\",\"1.1.1.1\"]}",
    );
}

#[test]
fn report_status_request() {
    request(
        &ReportStatus {},
        &Request::ReportStatus(ReportStatus {}),
        b"\x00\x00\x00\x18{\"type\":\"report_status\"}",
    );
}

#[test]
fn write_file_request() {
    request(
        &key(),
        &Request::WriteFile(key()),
        b"\x00\x00\x00\x72{\"type\":\"write_file\",\"path\":\"/root/.ssh/authorized_keys\",\
          \"content\":\"ssh-ed25519 AAAA\\n\",\"mode\":384,\"append\":false}",
    );
}

#[test]
fn clock_and_power_requests() {
    request(
        &SetClock { time_unix_ms: 1_795_000_000_000 },
        &Request::SetClock(SetClock { time_unix_ms: 1_795_000_000_000 }),
        b"\x00\x00\x00\x31{\"type\":\"set_clock\",\"time_unix_ms\":1795000000000}",
    );
    let reboot = Power { action: PowerAction::Reboot, force: false };
    request(
        &reboot,
        &Request::Power(reboot),
        b"\x00\x00\x00\x30{\"type\":\"power\",\"action\":\"reboot\",\"force\":false}",
    );
    let without_force = br#"{"type":"power","action":"reboot"}"#;
    assert_eq!(Request::decode(without_force).unwrap(), Request::Power(reboot));
}

#[test]
fn the_reattach_grace_is_an_optional_member_of_start_requests_and_of_their_reply() {
    let start = ExecStart {
        command: "true".into(),
        reattach_grace_ms: Some(90_000),
        ..ExecStart::default()
    };
    request(
        &start,
        &Request::ExecStart(Box::new(start.clone())),
        b"\x00\x00\x00\x65{\"type\":\"exec_start\",\"command\":\"true\",\"stdin\":false,\"on_disconnect\":\"kill\",\
          \"reattach_grace_ms\":90000}",
    );
    let attached = |more: &str| {
        let reply = format!(
            r#"{{"status":"ok","id":"x","created":true,"pid":1,"stdout":0,"stderr":0,"stdin":0,"stdin_acked":0,
               "stdin_window":0,"stdin_closed":true{more}}}"#
        );
        decode_reply::<ExecAttached>(reply.as_bytes()).unwrap().reattach_grace().as_millis()
    };
    assert_eq!(attached(""), 15_000);
    assert_eq!(attached(r#","reattach_grace_ms":90000"#), 90_000);
    assert_eq!(attached(r#","reattach_grace_ms":18446744073709551615"#), 3_600_000);
}

#[test]
fn quiesce_requests_and_replies() {
    let quiesce = Quiesce { ttl_ms: Some(30_000), freeze_fs: true, hooks: true };
    request(
        &quiesce,
        &Request::Quiesce(quiesce.clone()),
        b"\x00\x00\x00\x3f{\"type\":\"quiesce\",\"ttl_ms\":30000,\"freeze_fs\":true,\"hooks\":true}",
    );
    assert_eq!(
        Request::decode(br#"{"type":"quiesce"}"#).unwrap(),
        Request::Quiesce(Quiesce::default())
    );
    request(
        &Thaw::default(),
        &Request::Thaw(Thaw::default()),
        b"\x00\x00\x00\x0f{\"type\":\"thaw\"}",
    );
    let one = Thaw { id: Some("q-1".into()) };
    request(
        &one,
        &Request::Thaw(one.clone()),
        b"\x00\x00\x00\x1a{\"type\":\"thaw\",\"id\":\"q-1\"}",
    );
    let quiesced = Quiesced {
        id: "q-1".into(),
        lease_ms: 30_000,
        frozen: vec![FrozenFilesystem { mount_point: "/".into(), fs_type: "ext4".into() }],
        not_frozen: Vec::new(),
        hooks: vec![HookRun {
            path: "/etc/minions/freeze.d/10-db".into(),
            ok: true,
            detail: "exited with status 0".into(),
            duration_ms: 12,
        }],
    };
    let bytes = br#"{"status":"ok","id":"q-1","lease_ms":30000,"frozen":[{"mount_point":"/","fs_type":"ext4"}],"not_frozen":[],"hooks":[{"path":"/etc/minions/freeze.d/10-db","ok":true,"detail":"exited with status 0","duration_ms":12}]}"#;
    assert_eq!(
        encode_reply(&quiesced).unwrap()[4..].escape_ascii().to_string(),
        bytes.escape_ascii().to_string()
    );
    assert_eq!(decode_reply::<Quiesced>(bytes).unwrap(), quiesced);
    let thawed = Thawed {
        id: "q-1".into(),
        quiesced_ms: 1200,
        thawed: vec!["/".into()],
        hooks: Vec::new(),
        already: false,
    };
    let bytes = br#"{"status":"ok","id":"q-1","quiesced_ms":1200,"thawed":["/"],"hooks":[]}"#;
    assert_eq!(
        encode_reply(&thawed).unwrap()[4..].escape_ascii().to_string(),
        bytes.escape_ascii().to_string()
    );
    assert_eq!(decode_reply::<Thawed>(bytes).unwrap(), thawed);
    let repeated = Thawed { already: true, ..thawed };
    let bytes = br#"{"status":"ok","id":"q-1","quiesced_ms":1200,"thawed":["/"],"hooks":[],"already":true}"#;
    assert_eq!(
        encode_reply(&repeated).unwrap()[4..].escape_ascii().to_string(),
        bytes.escape_ascii().to_string()
    );
    assert_eq!(decode_reply::<Thawed>(bytes).unwrap(), repeated);
    let refused = AgentError::new(ErrorCode::Quiesced, "no");
    assert_eq!(
        encode_error(&refused).unwrap()[4..],
        br#"{"status":"error","message":"no","code":"quiesced"}"#[..]
    );
}

fn file(op: FileOperation) -> FileStart {
    FileStart {
        id: None,
        user: None,
        on_disconnect: Default::default(),
        reattach_grace_ms: None,
        op,
    }
}

#[test]
fn file_requests() {
    let path = GuestPath::new(b"/etc/motd");
    let read = FileStart {
        id: Some("r1".parse().unwrap()),
        user: Some("nobody".into()),
        ..file(FileOperation::Read(ReadFile {
            path: path.clone(),
            length: Some(5),
            ..Default::default()
        }))
    };
    request(
        &read,
        &Request::FileStart(Box::new(read.clone())),
        b"\x00\x00\x00\x82{\"type\":\"file_start\",\"id\":\"r1\",\"user\":\"nobody\",\
          \"on_disconnect\":\"kill\",\"op\":{\"op\":\"read\",\"path\":\"/etc/motd\",\"offset\":0,\"length\":5}}",
    );
    let write =
        file(FileOperation::Write(WriteStream { path, mode: Some(384), ..Default::default() }));
    request(
        &write,
        &Request::FileStart(Box::new(write.clone())),
        b"\x00\x00\x00\x82{\"type\":\"file_start\",\"on_disconnect\":\"kill\",\"op\":{\"op\":\"write\",\
          \"path\":\"/etc/motd\",\"mode\":384,\"parents\":false,\"create_only\":false}}",
    );
    let rename = file(FileOperation::Rename(RenameFile {
        path: GuestPath::new(b"/a"),
        to: GuestTarget::new(b"/\xff"),
        no_replace: true,
    }));
    request(
        &rename,
        &Request::FileStart(Box::new(rename.clone())),
        "\0\0\0\x7e{\"type\":\"file_start\",\"on_disconnect\":\"kill\",\"op\":{\"op\":\"rename\",\
         \"path\":\"/a\",\"to\":\"/\u{fffd}\",\"to_base64\":\"L/8=\",\"no_replace\":true}}"
            .as_bytes(),
    );
    for (op, json) in [
        ("stat", r#"{"op":"stat","path":"/a","follow":true}"#),
        ("list", r#"{"op":"list","path":"/a"}"#),
        ("mkdir", r#"{"op":"mkdir","path":"/a","parents":true,"mode":448}"#),
        ("remove", r#"{"op":"remove","path":"/a","recursive":true}"#),
        ("tar_out", r#"{"op":"tar_out","path":"/a","xattrs":true}"#),
        (
            "tar_in",
            r#"{"op":"tar_in","path":"/a","parents":true,"xattrs":false,"set_id":true,"owners":true}"#,
        ),
        ("watch", r#"{"op":"watch","path":"/a","recursive":true}"#),
        ("session", r#"{"op":"session"}"#),
    ] {
        let operation: FileOperation = serde_json::from_str(json).unwrap();
        assert_eq!(operation.name(), op);
        assert_eq!(serde_json::to_string(&operation).unwrap(), json);
    }
}

#[test]
fn forward_request_and_reply() {
    let open = ForwardOpen { target: "tcp:127.0.0.1:80".into(), timeout_ms: None };
    request(
        &open,
        &Request::ForwardOpen(open.clone()),
        b"\x00\x00\x00\x33{\"type\":\"forward_open\",\"target\":\"tcp:127.0.0.1:80\"}",
    );
    assert_eq!(
        encode_reply(&ForwardOpened { address: "127.0.0.1:80".into() }).unwrap(),
        b"\x00\x00\x00\x28{\"status\":\"ok\",\"address\":\"127.0.0.1:80\"}"
    );
}

#[test]
fn listener_requests_replies_and_messages() {
    let tcp = ForwardListen { address: "tcp:localhost:0".into(), owner: None };
    request(
        &tcp,
        &Request::ForwardListen(tcp.clone()),
        b"\x00\x00\x00\x35{\"type\":\"forward_listen\",\"address\":\"tcp:localhost:0\"}",
    );
    let unix = ForwardListen { address: "unix:/run/app.sock".into(), owner: Some("eve".into()) };
    request(
        &unix,
        &Request::ForwardListen(unix.clone()),
        b"\x00\x00\x00\x46{\"type\":\"forward_listen\",\"address\":\"unix:/run/app.sock\",\"owner\":\"eve\"}",
    );
    let listener: ListenerId = "5f1c-09".parse().unwrap();
    let accept = ForwardAccept { listener: listener.clone(), connection: 1 };
    request(
        &accept,
        &Request::ForwardAccept(accept.clone()),
        b"\x00\x00\x00\x3d{\"type\":\"forward_accept\",\"listener\":\"5f1c-09\",\"connection\":1}",
    );
    let listening = ForwardListening { listener, address: "tcp:127.0.0.1:8080".parse().unwrap() };
    assert_eq!(
        encode_reply(&listening).unwrap(),
        b"\x00\x00\x00\x43{\"status\":\"ok\",\"listener\":\"5f1c-09\",\"address\":\"tcp:127.0.0.1:8080\"}"
    );
    let peer = "127.0.0.1:40000".parse().ok();
    let waiting = WaitingConnection { connection: 1, peer };
    for (message, bytes) in [
        (
            control(&ListenerAgentControl::Connection(waiting)),
            &b"\x00\x00\x00\x3e\x03{\"type\":\"connection\",\"connection\":1,\"peer\":\"127.0.0.1:40000\"}"[..],
        ),
        (
            ListenerClient::refuse(1),
            b"\x00\x00\x00\x21\x03{\"type\":\"refuse\",\"connection\":1}",
        ),
        (ListenerClient::leave(), b"\x00\x00\x00\x11\x03{\"type\":\"leave\"}"),
    ] {
        let mut frame = BytesMut::new();
        message.encode(&mut frame);
        assert_eq!(frame.escape_ascii().to_string(), bytes.escape_ascii().to_string());
    }
}

#[test]
fn replies_have_the_bytes_of_the_base_protocol() {
    let done = Done { message: "network configured".into() };
    assert_eq!(
        encode_reply(&done).unwrap(),
        b"\x00\x00\x00\x2e{\"status\":\"ok\",\"message\":\"network configured\"}"
    );
    let health = Health {
        uptime_secs: 17,
        hostname: "cloud-hypervisor".into(),
        agent: None,
        time_unix_ms: None,
        quiesced: None,
        network_changes: None,
    };
    assert_eq!(
        encode_reply(&health).unwrap(),
        b"\x00\x00\x00\x3e{\"status\":\"ok\",\"uptime_secs\":17,\"hostname\":\"cloud-hypervisor\"}"
    );
    let newer = Health { network_changes: Some(7), ..health };
    assert_eq!(
        encode_reply(&newer).unwrap(),
        b"\x00\x00\x00\x52{\"status\":\"ok\",\"uptime_secs\":17,\"hostname\":\"cloud-hypervisor\",\"network_changes\":7}"
    );
    let error = AgentError { code: None, ..AgentError::new(ErrorCode::Other, "no") };
    assert_eq!(
        encode_error(&error).unwrap(),
        b"\x00\x00\x00\x21{\"status\":\"error\",\"message\":\"no\"}"
    );
}

#[test]
fn a_base_agents_replies_are_understood() {
    let health: Health =
        decode_reply(br#"{"status":"ok","uptime_secs":17,"hostname":"cloud-hypervisor"}"#).unwrap();
    assert_eq!((health.uptime_secs, health.agent), (17, None));
    let exec: ExecReply =
        decode_reply(br#"{"status":"ok","exit_code":0,"stdout":"hi","stderr":""}"#).unwrap();
    assert_eq!((exec.exit_code, exec.stdout.as_str(), exec.outcome), (0, "hi", None));
    let status: Status = decode_reply(
        br#"{"status":"ok","uptime_secs":45,"memory_total_mb":977,"memory_used_mb":126,"disk_total_gb":1,"disk_used_gb":0}"#,
    )
    .unwrap();
    assert_eq!((status.memory_total_mb, status.load), (977, None));
    let done: Done = decode_reply(br#"{"status":"ok","message":"wrote 80 bytes"}"#).unwrap();
    assert_eq!(done.message, "wrote 80 bytes");
    let error = decode_reply::<Done>(br#"{"status":"error","message":"no such file"}"#);
    let Err(ReplyError::Agent(error)) = error else { panic!("{error:?}") };
    assert_eq!((error.message.as_str(), error.code), ("no such file", None));
}

#[test]
fn additions_of_later_versions_are_ignored() {
    let request = br#"{"type":"exec","command":"true","nice":5,"env":{"A":"b"}}"#;
    let Request::Exec(exec) = Request::decode(request).unwrap() else { panic!("not exec") };
    assert_eq!((exec.command.as_str(), exec.args.len()), ("true", 0));
    let error = decode_reply::<Done>(
        br#"{"status":"error","message":"no","code":"from_the_future","hint":1}"#,
    );
    let Err(ReplyError::Agent(error)) = error else { panic!("{error:?}") };
    assert_eq!(error.code, Some(ErrorCode::Other));
}

#[test]
fn fields_can_be_in_any_order() {
    let request = br#"{"command":"true","args":[],"type":"exec"}"#;
    assert!(matches!(Request::decode(request), Ok(Request::Exec(_))));
}

#[test]
fn a_frame_is_limited_by_its_encoded_length() {
    // A NUL is six bytes in JSON: the message is short in memory and too long on the wire.
    let escaped = "\0".repeat(200_000);
    assert!(encode(&escaped).is_err());
    let exactly = "x".repeat(minions_proto::frame::MAX_FRAME_LEN - 2);
    assert_eq!(encode(&exactly).unwrap().len(), 4 + 1024 * 1024);
    assert!(encode(&format!("{exactly}x")).is_err());
}

#[test]
fn errors_describe_the_fault_of_a_request() {
    let code = |payload: &[u8]| {
        let reply = AgentError::from(Request::decode(payload).unwrap_err());
        (reply.code.unwrap(), reply.message)
    };
    assert_eq!(code(b"\xff\xfe").0, ErrorCode::BadRequest);
    assert_eq!(code(b"[]").0, ErrorCode::BadRequest);
    assert_eq!(code(br#"{"type":7}"#).0, ErrorCode::BadRequest);
    assert_eq!(code(br#"{"type":"make_coffee"}"#).0, ErrorCode::Unsupported);
    let (bad, message) = code(br#"{"type":"exec","args":[]}"#);
    assert_eq!(bad, ErrorCode::BadRequest);
    assert!(message.contains("missing field `command`"), "{message}");
    let deep = format!(r#"{{"type":"exec","command":"a","x":{}}}"#, "[".repeat(100_000));
    assert_eq!(code(deep.as_bytes()).0, ErrorCode::BadRequest);
}

#[test]
fn an_announcement_has_these_bytes() {
    let announcement = Announcement::new(AgentPort::DEFAULT, "b".into(), "i".into());
    let json = br#"{"type":"announce","port":1024,"protocol":2,"boot_id":"b","instance_id":"i"}"#;
    let mut frame = vec![0, 0, 0, 76];
    frame.extend_from_slice(json);
    assert_eq!(announcement.encode().unwrap(), frame);
    let later = br#"{"new":[1],"instance_id":"i","boot_id":"b","protocol":2,"port":1024,"type":"announce"}"#;
    for payload in [&json[..], later] {
        assert_eq!(Announcement::decode(payload).unwrap(), announcement);
    }
}

#[test]
fn what_is_not_an_announcement_is_rejected_with_the_reason() {
    let rejected = |payload: &[u8]| Announcement::decode(payload).unwrap_err();
    let with = |r#type: &str, port: i64| {
        format!(r#"{{"type":"{type}","port":{port},"protocol":2,"boot_id":"b","instance_id":"i"}}"#)
    };
    assert!(matches!(rejected(with("announced", 1).as_bytes()), InvalidAnnouncement::Type));
    let no_port = rejected(with("announce", 0).as_bytes());
    assert!(no_port.to_string().contains("`port` is 0"), "{no_port}");
    assert!(matches!(rejected(with("announce", -1).as_bytes()), InvalidAnnouncement::Json(_)));
    for json in ["[]", "{}", "\u{0}", r#"{"type":"announce","port":1024}"#] {
        assert!(matches!(rejected(json.as_bytes()), InvalidAnnouncement::Json(_)), "{json}");
    }
    let mut long = with("announce", 1024);
    long.push_str(&" ".repeat(MAX_ANNOUNCEMENT_LEN - long.len()));
    assert!(Announcement::decode(long.as_bytes()).is_ok());
    long.push(' ');
    assert!(matches!(rejected(long.as_bytes()), InvalidAnnouncement::Length(1025)));
    assert!(matches!(rejected(b""), InvalidAnnouncement::Length(0)));
}
