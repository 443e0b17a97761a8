//! The VMM process that listens on a VM's socket: it is identified, and its end is noticed at once.

use serde_json::json;
use std::path::Path;
use std::process::Stdio;
use testkit::daemon::{DEADLINE, TestDaemon};
use testkit::wait::until_async;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// VMM whose connections and listener outlive it, because a child process holds them all. It answers only
/// health checks, and creates `<socket>.called` at another request; the child ends when its standard input does.
const VMM: &str = r#"
import os, socket, struct, sys, threading, time
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
if os.fork():
    time.sleep(600)
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
def whole(client, length):
    data = b''
    while len(data) < length:
        more = client.recv(length - len(data))
        if not more:
            sys.exit()
        data += more
    return data
def serve(client):
    while whole(client, 1) != b'\n':
        pass
    client.sendall(b'OK 1\n')
    while True:
        request = whole(client, struct.unpack('>I', whole(client, 4))[0])
        if b'health_check' in request:
            reply = b'{"status":"ok","uptime_secs":1,"hostname":"h"}'
            client.sendall(struct.pack('>I', len(reply)) + reply)
        else:
            open(sys.argv[1] + '.called', 'w').close()
while True:
    client, _ = listener.accept()
    threading.Thread(target=serve, args=(client,), daemon=True).start()
"#;

fn start(socket: &Path) -> Child {
    let mut python = Command::new("python3");
    python.arg("-c").arg(VMM).arg(socket).stdin(Stdio::piped());
    python.kill_on_drop(true).spawn().unwrap()
}

#[tokio::test]
async fn a_vm_shows_its_vmm_process_and_the_resources_of_it() {
    let daemon = TestDaemon::start().await;
    let vmm = start(&daemon.sockets().join("web-1.vsock"));
    daemon.until_state("web-1", "ready").await;
    let seen = daemon.until("/vms/web-1", |vm| vm.json["vmm"].is_object()).await;
    let process = &seen.json["vmm"];
    assert_eq!(process["pid"].as_u64(), vmm.id().map(u64::from));
    assert!(process["name"].as_str().unwrap().starts_with("python3"), "{process}");
    assert!(process["rss_bytes"].as_u64() > Some(1_000_000), "{process}");
    assert!(process["cpu_ms"].is_u64());
    assert_eq!(seen.json["incarnation"]["vmm_pid"], process["pid"]);
    assert!(seen.json["incarnation"]["vmm_start_ticks"].is_u64());
    let listed = daemon.get("/vms").await;
    assert_eq!(
        listed.json["vms"][0]["vmm"],
        json!({ "pid": process["pid"], "name": process["name"] })
    );
}

#[tokio::test]
async fn a_call_ends_with_the_vmm_even_if_its_connections_stay_open() {
    let daemon = TestDaemon::start().await;
    let called = daemon.sockets().join("web-1.vsock.called");
    let mut vmm = start(&called.with_extension(""));
    let input = vmm.stdin.take();
    daemon.until("/vms/web-1", |vm| vm.json["vmm"].is_object()).await;
    let call = daemon.get("/vms/web-1/status?timeout_ms=3600000");
    let (call, ()) = tokio::join!(timeout(DEADLINE, call), async {
        until_async("the VMM has the request", async || called.exists()).await;
        vmm.kill().await.unwrap();
    });
    call.unwrap().assert_problem(502, "connection_lost");
    let after = daemon.until("/vms/web-1", |vm| vm.json["vmm"].is_null()).await;
    assert_eq!(after.json["incarnation"].get("vmm_pid"), None);
    drop(input);
    daemon.until_state("web-1", "stale").await;
}
