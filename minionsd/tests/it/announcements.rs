//! Announcements of agents on `<vm>.vsock_1025`, as a VMM or any other process sends them.

use minions_proto::AgentPort;
use minions_proto::announcement::Announcement;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use testkit::agent_process::AgentProcess;
use testkit::daemon::{Reply, TestDaemon};
use testkit::fake_vmm::{Behaviour, Dialect, FakeVmm, Guest};
use testkit::minionsd::Minionsd;
use testkit::wait::until_async;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

fn host_socket(vms: &Path) -> PathBuf {
    vms.join("web-1.vsock_1025")
}

fn guest() -> Guest {
    Guest::new("web-1", Dialect::Objects, 1, Arc::default())
}

/// Returns the frame of an announcement with the boot id of [`guest`].
fn announcement() -> Vec<u8> {
    let boot = "web-1 boot 1".into();
    Announcement::new(AgentPort::DEFAULT, boot, "web-1 1".into()).encode().unwrap()
}

async fn connect(vms: &Path) -> UnixStream {
    until_async("the daemon listens for announcements", async || {
        UnixStream::connect(host_socket(vms)).await
    })
    .await
}

/// Sends bytes, and waits until the daemon closes the connection.
async fn send(vms: &Path, bytes: &[u8]) {
    let mut stream = connect(vms).await;
    // The daemon may close the connection before it has read anything.
    let _ = stream.write_all(bytes).await;
    closed(stream).await;
}

/// Waits until the daemon has closed a connection without a word.
async fn closed(mut stream: UnixStream) {
    let mut received = Vec::new();
    match stream.read_to_end(&mut received).await {
        Ok(_) => assert!(received.is_empty(), "{received:?}"),
        // Bytes that the daemon has not read reset the connection.
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
}

fn boot(vm: &Reply) -> &Value {
    &vm.json["boot"]
}

#[tokio::test]
async fn the_boot_timeline_has_the_steps_in_their_order() {
    let daemon = TestDaemon::start().await;
    let vm = FakeVmm::start(daemon.sockets(), "web-1", Behaviour::Refuses).unwrap();
    let found = daemon.until("/vms/web-1", |vm| boot(vm)["vmm_seen_at"].is_string()).await;
    assert_eq!(boot(&found)["ready_at"], Value::Null, "{found:?}");
    send(daemon.sockets(), &announcement()).await;
    let announced = daemon.until("/vms/web-1", |vm| boot(vm)["announced_at"].is_string()).await;
    assert_eq!(boot(&announced)["ready_at"], Value::Null, "{announced:?}");
    vm.switch_to(Behaviour::Guest(guest()));
    let ready = daemon.until_state("web-1", "ready").await;
    // Times of this form have the order of their texts.
    let at =
        |step: &str| boot(&ready)[step].as_str().unwrap_or_else(|| panic!("{step}: {ready:?}"));
    assert!(at("vmm_seen_at") <= at("announced_at"), "{ready:?}");
    assert!(
        at("announced_at") <= at("ready_at") && at("connected_at") <= at("ready_at"),
        "{ready:?}"
    );
    assert_eq!(boot(&ready)["configured_at"], Value::Null);
}

#[tokio::test]
async fn junk_and_floods_are_closed_and_the_vm_stays_ready() {
    let daemon = TestDaemon::start().await;
    let vm = FakeVmm::start(daemon.sockets(), "web-1", Behaviour::Guest(guest())).unwrap();
    daemon.until_state("web-1", "ready").await;
    let oversized = [&u32::MAX.to_be_bytes()[..], &[b' '; 4096]].concat();
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"", b"\0\0\0\x02{}", b"\0\0\x04\x01", &oversized]
    {
        let mut stream = connect(daemon.sockets()).await;
        let _ = stream.write_all(bytes).await;
        stream.shutdown().await.ok();
        closed(stream).await;
    }
    // Connections that send nothing or a part of a message do not last.
    let mut silent = Vec::new();
    for _ in 0..32 {
        let mut stream = connect(daemon.sockets()).await;
        let _ = stream.write_all(&announcement()[..40]).await;
        silent.push(stream);
    }
    for stream in silent.split_off(4) {
        closed(stream).await;
    }
    drop(silent);
    let before = vm.accepted();
    for _ in 0..500 {
        send(daemon.sockets(), &announcement()).await;
    }
    assert!(vm.accepted() - before < 20, "{} connections to the VM", vm.accepted() - before);
    let shown = daemon.get("/vms/web-1").await;
    assert_eq!(shown.json["state"], "ready", "{shown:?}");
    assert!(boot(&shown)["announced_at"].is_string(), "{shown:?}");
    assert!(shown.json["attempts"].as_u64().unwrap() < 100, "{shown:?}");
}

#[tokio::test]
async fn the_socket_has_the_owner_of_the_vms_socket_and_is_removed_with_the_vm() {
    const NOBODY: u32 = 65534;
    let mut daemon = Minionsd::builder().start();
    let [vms, socket] = [daemon.vms().to_owned(), host_socket(daemon.vms())];
    let place = vms.join("new");
    let listener = StdListener::bind(&place).unwrap();
    std::os::unix::fs::chown(&place, Some(NOBODY), None).unwrap();
    fs::rename(&place, vms.join("web-1.vsock")).unwrap();
    drop(connect(&vms).await);
    let metadata = fs::symlink_metadata(&socket).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!((metadata.uid(), metadata.permissions().mode() & 0o777), (NOBODY, 0o600));
    drop(listener);
    // The socket of a VMM that runs could be missing because of a reboot.
    daemon.until("/vms/web-1", |vm| vm.json["state"] == "stale").await;
    fs::remove_file(vms.join("web-1.vsock")).unwrap();
    until_async(
        "the socket is removed",
        async || if socket.exists() { Err("exists") } else { Ok(()) },
    )
    .await;
    let _vm = FakeVmm::start(&vms, "web-1", Behaviour::Guest(guest())).unwrap();
    drop(connect(&vms).await);
    let _other = FakeVmm::start(&vms, "db-1", Behaviour::Refuses).unwrap();
    let other = vms.join("db-1.vsock_1025");
    until_async("a second listener", async || if other.exists() { Ok(()) } else { Err("none") })
        .await;
    let list = daemon.get("/vms").await.unwrap().json["vms"].as_array().map(Vec::len);
    assert_eq!(list, Some(2), "a socket for announcements is not a VM");
    assert!(daemon.terminate().success());
    assert!(!socket.exists() && !other.exists());
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_what_is_not_the_daemons_stays() {
    let builder = Minionsd::builder();
    let vms = builder.path().to_owned();
    drop(StdListener::bind(host_socket(&vms)).unwrap());
    fs::write(vms.join("file.vsock_1025"), "content").unwrap();
    let (in_use, name) = (vms.join("used.vsock_1025"), "used.vsock_1025");
    let _other = StdListener::bind(&in_use).unwrap();
    let before = fs::symlink_metadata(&in_use).unwrap().ino();
    let started = ["web-1", "file", "used"]
        .map(|name| FakeVmm::start(&vms, name, Behaviour::Guest(guest())).unwrap());
    let daemon = builder.start();
    for vm in ["web-1", "file", "used"] {
        daemon.until(&format!("/vms/{vm}"), |vm| vm.json["state"] == "ready").await;
    }
    send(&vms, &announcement()).await;
    daemon.until("/vms/web-1", |vm| boot(vm)["announced_at"].is_string()).await;
    assert_eq!(fs::read(vms.join("file.vsock_1025")).unwrap(), b"content");
    assert_eq!(fs::symlink_metadata(&in_use).unwrap().ino(), before);
    for words in ["file.vsock_1025 exists and is not a socket", name] {
        let logged = daemon.log().lines().filter(|line| line.contains(words)).count();
        assert_eq!(logged, 1, "{words}: {}", daemon.log());
    }
    drop(started);
}

#[tokio::test]
async fn a_link_of_a_vmms_user_to_another_vm_does_not_take_its_socket() {
    let builder = Minionsd::builder();
    let vms = builder.path().to_owned();
    let of_user = vms.join("user");
    fs::create_dir(&of_user).unwrap();
    let _vm = FakeVmm::start(&vms, "web-1", Behaviour::Guest(guest())).unwrap();
    let daemon = builder.start();
    drop(connect(&vms).await);
    let before = fs::symlink_metadata(host_socket(&vms)).unwrap().ino();
    std::os::unix::fs::symlink(vms.join("web-1.vsock"), of_user.join("a.vsock")).unwrap();
    std::os::unix::fs::symlink(of_user.join("a.vsock"), vms.join("a.vsock")).unwrap();
    // A second name for the socket, which the administrator gave.
    std::os::unix::fs::symlink("web-1.vsock", vms.join("alias.vsock")).unwrap();
    until_async("both reasons are logged", async || {
        let log = daemon.log();
        let has = |words: &str| log.contains(words);
        let is_done = has("a.vsock exists and is not a socket")
            && has("another process listens on")
            && has("vm=alias");
        if is_done { Ok(()) } else { Err(log) }
    })
    .await;
    assert_eq!(fs::symlink_metadata(host_socket(&vms)).unwrap().ino(), before);
    send(&vms, &announcement()).await;
    daemon.until("/vms/web-1", |vm| boot(vm)["announced_at"].is_string()).await;
}

/// Each of these guests leaves `CONNECT` unanswered and announces itself, so that its VM is dialled again.
#[tokio::test]
async fn guests_that_announce_and_do_not_answer_do_not_stop_the_dials_to_others() {
    let daemon = TestDaemon::start().await;
    let silent: Vec<_> = (0..70)
        .map(|number| {
            let name = format!("silent-{number}");
            (FakeVmm::start(daemon.sockets(), &name, Behaviour::NeverGrants).unwrap(), name)
        })
        .collect();
    for (vm, name) in &silent {
        until_async("the VM is dialled", async || {
            if vm.accepted() > 0 { Ok(()) } else { Err("no connection") }
        })
        .await;
        let socket = daemon.sockets().join(format!("{name}.vsock_1025"));
        for _ in 0..2 {
            let mut stream =
                until_async("there is a listener", async || UnixStream::connect(&socket).await)
                    .await;
            stream.write_all(&announcement()).await.unwrap();
        }
    }
    let _vm = FakeVmm::start(daemon.sockets(), "web-1", Behaviour::Guest(guest())).unwrap();
    daemon.until_state("web-1", "ready").await;
}

#[tokio::test]
async fn without_the_setting_there_is_no_listener_and_vms_become_ready() {
    let builder = Minionsd::builder().config("announce = false\n");
    let vms = builder.path().to_owned();
    let _vm = FakeVmm::start(&vms, "web-1", Behaviour::Guest(guest())).unwrap();
    let daemon = builder.start();
    daemon.until("/vms/web-1", |vm| vm.json["state"] == "ready").await;
    assert!(!host_socket(&vms).exists());
}

#[tokio::test]
async fn a_real_agent_announces_each_of_its_starts_unless_it_must_not() {
    let daemon = Minionsd::builder().start();
    // The agent is its own VMM here, so it may give up before the daemon has found its socket. A killed agent leaves
    // the socket, so the listener exists when the next one starts.
    until_async("an agent announces itself", async || {
        let _agent = AgentProcess::start(daemon.vms(), "web-1", &[]);
        let ready = |vm: &Reply| vm.json["state"] == "ready";
        let mut vm = daemon.until("/vms/web-1", ready).await;
        for _ in 0..100 {
            if boot(&vm)["announced_at"].is_string() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            vm = daemon.get("/vms/web-1").await.unwrap();
        }
        Err(vm)
    })
    .await;
    let _silent = AgentProcess::start(daemon.vms(), "web-2", &["--no-announce"]);
    let vm = daemon.until("/vms/web-2", |vm| vm.json["state"] == "ready").await;
    assert_eq!(boot(&vm)["announced_at"], Value::Null, "{vm:?}");
}
