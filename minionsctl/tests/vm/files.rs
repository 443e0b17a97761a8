//! Files of a real guest over REST, and ports of it, without an address.

use crate::boot::boot;
use crate::shared::command::{Ran, Running, ctl};
use crate::shared::process;
use sha2::{Digest, Sha256};
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;
use testkit::minionsd::Minionsd;
use testkit::rig::VmConfig;
use testkit::wait::until;

/// Bytes of the large file.
const LARGE: usize = 16 * 1024 * 1024;

async fn put(daemon: &Minionsd, path: &str, media_type: &str, body: Vec<u8>) -> serde_json::Value {
    let url = format!("http://localhost/vms/web-1/files?path={path}&parents=true");
    let request = daemon.http().put(url).header("content-type", media_type).body(body);
    let response = request.send().await.unwrap();
    let status = response.status();
    let json = response.json().await.unwrap();
    assert_eq!(status, 200, "{json}");
    json
}

async fn get(daemon: &Minionsd, path: &str, media_type: &str) -> Vec<u8> {
    let url = format!("http://localhost/vms/web-1/files?path={path}");
    let response = daemon.http().get(url).header("accept", media_type).send().await.unwrap();
    assert_eq!(response.status(), 200);
    response.bytes().await.unwrap().to_vec()
}

fn tar(args: &[&str], dir: &std::path::Path) -> Vec<u8> {
    let ran = Command::new("tar").args(args).current_dir(dir).output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
    ran.stdout
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_ports_of_a_guest_are_reached_without_an_address() {
    let dir =
        tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap();
    let _vm = boot(VmConfig::new("web-1", dir.path()));
    let daemon = process::start(dir.path());
    let run = |args: &[&str]| Ran::of(&mut ctl(&daemon.host(), args));

    // A large file, in and out.
    let bytes: Vec<u8> = (0..LARGE).map(|at| (at.wrapping_mul(at) >> 7).to_le_bytes()[0]).collect();
    let written = put(&daemon, "/data/large", "application/octet-stream", bytes.clone()).await;
    assert_eq!(written["file"]["size"], LARGE);
    let sum: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    run(&["exec", "web-1", "--", "sha256sum", "/data/large"]).assert(0, &sum, "");
    assert!(get(&daemon, "/data/large", "*/*").await == bytes, "the file is the same");

    // A tree, in and out.
    let tree = tempfile::tempdir().unwrap();
    fs::create_dir_all(tree.path().join("a/b")).unwrap();
    fs::write(tree.path().join("a/run"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(tree.path().join("a/run"), Permissions::from_mode(0o751)).unwrap();
    symlink("../run", tree.path().join("a/b/link")).unwrap();
    let packed = tar(&["--format=gnu", "-cf", "-", "."], tree.path());
    put(&daemon, "/data/tree", "application/x-tar", packed).await;
    run(&["fs", "ls", "web-1:/data/tree/a"]).assert(0, "-rwxr-x--x", "");
    let packed = dir.path().join("tree.tar");
    fs::write(&packed, get(&daemon, "/data/tree", "application/x-tar").await).unwrap();
    // GNU tar compares modes, times, links and contents.
    tar(&["-df", packed.to_str().unwrap()], tree.path());
    run(&["fs", "rm", "-r", "web-1:/data"]).assert(0, "", "");
    run(&["fs", "ls", "web-1:/data"]).assert(1, "", "No such file or directory");

    // The same tree with cp: in, out, and as a stream.
    let (from, out) = (tree.path().to_str().unwrap(), dir.path().join("out"));
    run(&["cp", "-a", from, "web-1:/copy"]).assert(0, "", "");
    run(&["exec", "web-1", "--", "/copy/a/b/link"]).assert(0, "", "");
    run(&["cp", "-a", "web-1:/copy", out.to_str().unwrap()]).assert(0, "", "");
    let mut rsync = Command::new("rsync");
    rsync.args(["-n", "--checksum", "-aH", "--delete", "-i", "--modify-window=-1"]);
    let compared = rsync.arg(format!("{from}/")).arg(format!("{}/", out.display())).output();
    let changes = String::from_utf8(compared.unwrap().stdout).unwrap();
    assert_eq!(changes, "");
    let stream = run(&["cp", "web-1:/copy", "-"]);
    assert_eq!(stream.code, 0, "{}", stream.stderr);
    fs::write(&packed, stream.stdout).unwrap();
    tar(&["-tf", packed.to_str().unwrap(), "copy/a/b/link"], tree.path());

    // A port of a guest that has no address.
    let server = "ip link set lo up; exec nc -ll -p 8099 -e cat";
    run(&["exec", "-d", "web-1", "--", "sh", "-c", server]).assert(0, "", "");
    let mut forward =
        Running::start(&mut ctl(&daemon.host(), &["-o", "json", "forward", "web-1", "0:8099"]));
    let line: serde_json::Value = serde_json::from_str(&forward.line()).unwrap();
    let listen = line["listen"].as_str().unwrap().to_owned();
    until("the guest's server answers", || {
        let mut client = TcpStream::connect(&listen).unwrap();
        let mut answer = String::new();
        let asked = client.write_all(b"hello").and_then(|()| client.shutdown(Shutdown::Write));
        let answered = asked.and_then(|()| client.read_to_string(&mut answer));
        if answered.is_ok() && answer == "hello" { Ok(()) } else { Err(answer) }
    });
    reverse_forward(&daemon.host());
}

/// Connects from a guest that has no address to a server of this machine.
fn reverse_forward(host: &str) {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let forward = format!("8098:{}", server.local_addr().unwrap().port());
    let mut running =
        Running::start(&mut ctl(host, &["-o", "json", "forward", "web-1", "-R", &forward]));
    let line: serde_json::Value = serde_json::from_str(&running.line()).unwrap();
    assert_eq!(line["listen"], "127.0.0.1:8098");
    let serving = std::thread::spawn(move || {
        let mut stream = server.accept().unwrap().0;
        let mut question = [0; 6];
        stream.read_exact(&mut question).unwrap();
        stream.write_all(b"answer of the host\n").unwrap();
        question
    });
    let ask = ["exec", "web-1", "--", "sh", "-c", "echo asked | nc 127.0.0.1 8098"];
    Ran::of(&mut ctl(host, &ask)).assert(0, "answer of the host\n", "");
    assert_eq!(&serving.join().unwrap(), b"asked\n");
}
