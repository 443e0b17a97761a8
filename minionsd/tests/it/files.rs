//! Files of a guest over REST, with the real agent.

use reqwest::{Method, Response};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;
use testkit::agent_process::AgentProcess;
use testkit::daemon::{Reply, TestDaemon, read};
use testkit::fake_vmm::{Behaviour, FakeVmm, agent};
use testkit::wait::until_async;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

/// Daemon, agent, and a directory of the "guest".
struct Guest {
    daemon: TestDaemon,
    _agent: AgentProcess,
    dir: TempDir,
}

impl Guest {
    async fn start(arguments: &[&str]) -> Self {
        let daemon = TestDaemon::start().await;
        let agent = AgentProcess::start(daemon.sockets(), "web-1", arguments);
        daemon.until_state("web-1", "ready").await;
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        Self { daemon, _agent: agent, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Returns the URL's path and query for a file of the directory.
    fn files(&self, name: &str, more: &str) -> String {
        format!("/vms/web-1/files?path={}{more}", self.path(name).display())
    }

    async fn get(&self, name: &str, headers: &[(&str, &str)]) -> Response {
        let request = self.daemon.request(Method::GET, &self.files(name, ""));
        let request =
            headers.iter().fold(request, |request, (key, value)| request.header(*key, *value));
        request.send().await.unwrap()
    }

    async fn put(
        &self,
        name: &str,
        more: &str,
        body: &'static str,
        headers: &[(&str, &str)],
    ) -> Reply {
        let request = self.daemon.request(Method::PUT, &self.files(name, more)).body(body);
        let request =
            headers.iter().fold(request, |request, (key, value)| request.header(*key, *value));
        read(request.send().await.unwrap()).await
    }

    /// Reports whether the agent has an operation on this file in this state.
    async fn runs(&self, state: &str, name: &str) -> bool {
        let execs = self.daemon.get("/vms/web-1/execs").await;
        let path = self.path(name).to_str().unwrap().to_owned();
        let is_it =
            |exec: &&Value| exec["state"] == state && exec["args"].to_string().contains(&path);
        execs.json["execs"].as_array().unwrap().iter().any(|exec| is_it(&exec))
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers()[name].to_str().unwrap()
}

#[tokio::test]
async fn a_file_is_written_and_read_with_its_metadata() {
    let guest = Guest::start(&[]).await;
    let written = guest.put("a b", "&mode=640&parents=true", "hello", &[]).await;
    assert_eq!((written.status, &written.json["file"]["size"]), (200, &json!(5)), "{written:?}");
    assert_eq!(written.json["file"]["mode"], 0o640);
    assert_eq!(fs::read_to_string(guest.path("a b")).unwrap(), "hello");

    let response = guest.get("a b", &[]).await;
    assert_eq!(response.status(), 200);
    assert_eq!(header(&response, "content-type"), "application/octet-stream");
    assert_eq!(header(&response, "content-length"), "5");
    let info: Value = serde_json::from_str(header(&response, "x-minions-file")).unwrap();
    assert_eq!(info, written.json["file"]);
    assert_eq!(header(&response, "etag"), format!("\"{}\"", info["etag"].as_str().unwrap()));
    assert_eq!(response.text().await.unwrap(), "hello");

    // HEAD describes files of every type.
    let head = guest.daemon.request(Method::HEAD, "/vms/web-1/files?path=/dev/null").send().await;
    let info: Value = serde_json::from_str(header(&head.unwrap(), "x-minions-file")).unwrap();
    assert_eq!(info["type"], "char_device");
    let head = guest.daemon.request(Method::HEAD, &guest.files("a b", "")).send().await.unwrap();
    for (name, value) in [
        ("content-length", "5"),
        ("content-type", "application/octet-stream"),
        ("accept-ranges", "bytes"),
    ] {
        assert_eq!(header(&head, name), value, "{name}");
    }
}

#[tokio::test]
async fn ranges_and_conditions_apply_to_a_version_of_a_file() {
    let guest = Guest::start(&[]).await;
    guest.put("file", "", "0123456789", &[]).await;
    let whole = guest.get("file", &[]).await;
    let etag = header(&whole, "etag").to_owned();
    let part = guest.get("file", &[("range", "bytes=2-4"), ("if-range", &etag)]).await;
    assert_eq!((part.status().as_u16(), header(&part, "content-range")), (206, "bytes 2-4/10"));
    assert_eq!(part.text().await.unwrap(), "234");
    let last = guest.get("file", &[("range", "bytes=-3")]).await;
    assert_eq!((last.status().as_u16(), last.text().await.unwrap()), (206, "789".to_owned()));
    let all = guest.get("file", &[("range", "bytes=-11")]).await;
    assert_eq!((all.status().as_u16(), all.text().await.unwrap().len()), (200, 10));
    let lines = guest.get("file", &[("range", "lines=1-2")]).await;
    assert_eq!((lines.status().as_u16(), lines.text().await.unwrap().len()), (200, 10));
    let other = guest.get("file", &[("range", "bytes=2-4"), ("if-range", "\"other\"")]).await;
    assert_eq!((other.status().as_u16(), other.text().await.unwrap().len()), (200, 10));
    let beyond = guest.get("file", &[("range", "bytes=10-")]).await;
    assert_eq!(header(&beyond, "content-range"), "bytes */10");
    read(beyond).await.assert_problem(416, "range_not_satisfiable");
    assert_eq!(guest.get("file", &[("if-none-match", &etag)]).await.status(), 304);

    guest
        .put("file", "", "new", &[("if-match", "\"other\"")])
        .await
        .assert_problem(412, "file_changed");
    guest
        .put("file", "", "new", &[("if-none-match", "*")])
        .await
        .assert_problem(409, "file_exists");
    assert_eq!(fs::read_to_string(guest.path("file")).unwrap(), "0123456789");
    assert_eq!(guest.put("file", "", "new", &[("if-match", &etag)]).await.status, 200);
    assert_eq!(fs::read_to_string(guest.path("file")).unwrap(), "new");
}

#[tokio::test]
async fn a_failure_names_the_path_and_the_step() {
    let guest = Guest::start(&[]).await;
    fs::create_dir(guest.path("dir")).unwrap();
    let missing = read(guest.get("missing", &[]).await).await;
    missing.assert_problem(404, "file_not_found");
    let expected = (json!("ENOENT"), json!(guest.path("missing")), json!("open"));
    let named =
        (missing.json["errno"].clone(), missing.json["path"].clone(), missing.json["step"].clone());
    assert_eq!(named, expected);
    read(guest.get("dir", &[]).await).await.assert_problem(422, "file_failed");
    guest.put("dir", "", "x", &[]).await.assert_problem(422, "file_failed");
    guest.put("dir/x", "&user=nobody", "x", &[]).await.assert_problem(403, "file_access_denied");
    guest.put("x", "&user=no-such-user", "x", &[]).await.assert_problem(422, "user_not_found");
    guest
        .put("x", "&mode=9", "x", &[])
        .await
        .assert_problem(400, "invalid_request")
        .assert_field("mode");
    let form = [("content-type", "application/x-www-form-urlencoded")];
    guest.put("x", "", "x", &form).await.assert_problem(415, "unsupported_media_type");
    for path in ["", "relative", "/a%00b"] {
        let reply = guest.daemon.get(&format!("/vms/web-1/files?path={path}")).await;
        reply.assert_problem(422, "invalid_request").assert_field("path");
    }
    assert_eq!(guest.names(), ["dir"]);
}

#[tokio::test]
async fn an_upload_that_breaks_leaves_nothing() {
    let guest = Guest::start(&[]).await;
    fs::write(guest.path("old"), "old").unwrap();
    for name in ["old", "new"] {
        let mut client = UnixStream::connect(guest.daemon.unix_socket()).await.unwrap();
        let head = format!(
            "PUT {} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n",
            guest.files(name, "")
        );
        client.write_all(head.as_bytes()).await.unwrap();
        client.write_all(&[b'x'; 100_000]).await.unwrap();
        // The operation must have begun; otherwise nothing is tested.
        until_async("the operation runs", async || guest.runs("running", name).await).await;
        drop(client);
        until_async("the operation has ended", async || !guest.runs("running", name).await).await;
        assert_eq!(guest.names(), ["old"]);
        assert_eq!(fs::read_to_string(guest.path("old")).unwrap(), "old");
    }
}

fn tar(args: &[&str], dir: &Path) -> Vec<u8> {
    let ran = Command::new("tar").args(args).current_dir(dir).output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
    ran.stdout
}

#[tokio::test]
async fn a_tree_goes_in_and_out_unchanged() {
    let guest = Guest::start(&[]).await;
    let source = tempfile::tempdir().unwrap();
    let tree = source.path();
    fs::create_dir_all(tree.join("a/b/c")).unwrap();
    fs::write(tree.join("a/run"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(tree.join("a/run"), PermissionsExt::from_mode(0o750)).unwrap();
    fs::write(tree.join("a/b/large"), vec![7; 3_000_000]).unwrap();
    fs::write(tree.join(std::ffi::OsStr::from_bytes(b"a/\xff")), "odd").unwrap();
    symlink("../run", tree.join("a/b/link")).unwrap();
    fs::hard_link(tree.join("a/run"), tree.join("a/b/c/same")).unwrap();

    let packed = tar(&["--format=gnu", "-cf", "-", "a"], tree);
    let request = guest.daemon.request(Method::PUT, &guest.files("in", "&parents=true"));
    let request = request.header("content-type", "application/x-tar").body(packed);
    let written = read(request.send().await.unwrap()).await;
    assert_eq!((written.status, &written.json["left_out"]), (200, &json!(0)), "{written:?}");
    let same = Command::new("diff")
        .arg("-r")
        .arg("--no-dereference")
        .arg(tree)
        .arg(guest.path("in"))
        .output();
    assert!(same.as_ref().unwrap().status.success(), "{same:?}");

    let response = guest.get("in", &[("accept", "application/x-tar")]).await;
    assert_eq!(header(&response, "content-type"), "application/x-tar");
    let bytes = response.bytes().await.unwrap();
    let out = tempfile::tempdir().unwrap();
    fs::write(out.path().join("tree.tar"), &bytes).unwrap();
    tar(&["-xpf", "tree.tar"], out.path());
    // GNU tar compares modes, times, links and contents.
    let archive = out.path().join("tree.tar");
    tar(&["-df", archive.to_str().unwrap()], &guest.path("in"));
    let same = Command::new("diff")
        .arg("-r")
        .arg("--no-dereference")
        .arg(tree.join("a"))
        .arg(out.path().join("a"))
        .output();
    assert!(same.as_ref().unwrap().status.success(), "{same:?}");
}

#[tokio::test]
async fn members_of_a_hostile_tree_stay_beneath_the_directory() {
    let guest = Guest::start(&[]).await;
    let source = tempfile::tempdir().unwrap();
    symlink(guest.dir.path(), source.path().join("out")).unwrap();
    fs::write(source.path().join("evil"), "evil").unwrap();
    let link = tar(&["--format=gnu", "-cf", "-", "out"], source.path());
    let through =
        tar(&["--format=gnu", "-cf", "-", "--transform=s,evil,out/evil,", "evil"], source.path());
    // The first archive without its end, then the second: a link, and a file through it.
    let both = [&link[..512], &through[..]].concat();
    let request = guest.daemon.request(Method::PUT, &guest.files("in", "&parents=true"));
    let request = request.header("content-type", "application/x-tar").body(both);
    let reply = read(request.send().await.unwrap()).await;
    assert!(reply.status != 200 || reply.json["left_out"] == 1, "{reply:?}");
    assert_eq!(guest.names(), ["in"]);
}

#[tokio::test]
async fn directories_are_listed_created_renamed_and_removed() {
    let guest = Guest::start(&[]).await;
    let path = |name: &str| guest.path(name).to_str().unwrap().to_owned();
    let post = async |what: &str, body: Value| {
        guest.daemon.post(&format!("/vms/web-1/files/{what}"), body).await
    };
    post("mkdir", json!({ "path": path("a/b") })).await.assert_problem(404, "file_not_found");
    let made = post("mkdir", json!({ "path": path("a/b"), "parents": true, "mode": "700" })).await;
    assert_eq!((&made.json["type"], &made.json["mode"]), (&json!("directory"), &json!(0o700)));
    fs::write(guest.path("a").join(std::ffi::OsStr::from_bytes(b"\xfe")), "x").unwrap();
    let moved = post("move", json!({ "path": path("a/b"), "to": path("a/c") })).await;
    assert_eq!(moved.status, 200, "{moved:?}");
    let clash = json!({ "path": path("a/c"), "to": path("a"), "no_replace": true });
    post("move", clash).await.assert_problem(409, "file_exists");

    let list = format!("/vms/web-1/files/list?path={}", path("a"));
    let lines = guest.daemon.request(Method::GET, &list).send().await.unwrap();
    assert_eq!(header(&lines, "content-type"), "application/x-ndjson");
    let lines = lines.text().await.unwrap();
    let mut entries: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    entries.sort_by_key(|entry| entry["type"].to_string());
    assert_eq!((&entries[0]["name"], &entries[0]["type"]), (&json!("c"), &json!("directory")));
    assert_eq!((&entries[1]["name_base64"], entries.len()), (&json!("/g=="), 2));

    let delete = async |more: &str| {
        read(guest.daemon.request(Method::DELETE, &guest.files("a", more)).send().await.unwrap())
            .await
    };
    delete("").await.assert_problem(422, "file_failed");
    let removed = delete("&recursive=true").await;
    assert_eq!((removed.status, &removed.json["count"]), (200, &json!(3)), "{removed:?}");
    assert_eq!(guest.names(), [""; 0]);
}

#[tokio::test]
async fn changes_in_a_directory_are_events() {
    let guest = Guest::start(&[]).await;
    let watch = format!("/vms/web-1/files/watch?path={}", guest.dir.path().display());
    let mut events = guest.daemon.request(Method::GET, &watch).send().await.unwrap();
    let mut text = String::new();
    assert_eq!(header(&events, "content-type"), "text/event-stream");
    fs::write(guest.path("new"), "x").unwrap();
    while !text.contains("event: created") {
        text += &String::from_utf8_lossy(&events.chunk().await.unwrap().unwrap());
    }
    assert!(text.contains(&format!("\"path\":{}", json!(guest.path("new")))), "{text}");
    // A client that was connected before has missed changes.
    let again = guest.daemon.request(Method::GET, &watch).header("last-event-id", "7");
    let first = again.send().await.unwrap().chunk().await.unwrap().unwrap();
    assert!(first.windows(15).any(|bytes| bytes == b"event: overflow"), "{first:?}");
}

#[tokio::test]
async fn an_agent_without_the_feature_or_the_permission_is_told_apart() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    daemon.get("/vms/web-1/files?path=/etc/hostname").await.assert_problem(501, "agent_error");
    let old = FakeVmm::start(daemon.sockets(), "old", Behaviour::Agent(agent().unwrap()));
    drop(old);
    let guest = Guest::start(&["--allow", "health,status,files"]).await;
    guest.put("file", "", "x", &[]).await;
    assert_eq!(guest.get("file", &[]).await.text().await.unwrap(), "x");
    guest.daemon.exec("web-1", "true", &[]).await.assert_problem(501, "agent_error");
}

#[tokio::test]
async fn what_a_request_cannot_mean_is_refused_and_nothing_is_lost() {
    let guest = Guest::start(&[]).await;
    fs::write(guest.path("file"), "0123456789").unwrap();
    let part = [("content-range", "bytes 5-9/10")];
    guest
        .put("file", "", "56789", &part)
        .await
        .assert_problem(400, "invalid_request")
        .assert_field("Content-Range");
    let packed = [("content-encoding", "gzip")];
    guest.put("file", "", "x", &packed).await.assert_problem(415, "unsupported_media_type");
    let tree = [("content-type", "application/x-tar"), ("if-match", "\"x\"")];
    guest
        .put("dir", "", "", &tree)
        .await
        .assert_problem(400, "invalid_request")
        .assert_field("If-Match");
    guest
        .put("dir", "&mode=700", "", &tree[..1])
        .await
        .assert_problem(400, "invalid_request")
        .assert_field("mode");
    guest
        .put("file", "&owners=true", "x", &[])
        .await
        .assert_problem(400, "invalid_request")
        .assert_field("owners");
    let delete = guest.daemon.request(Method::DELETE, &guest.files("file", ""));
    let delete = read(delete.header("if-match", "\"x\"").send().await.unwrap()).await;
    delete.assert_problem(400, "invalid_request").assert_field("if-match");
    let mode = json!({ "path": guest.path("dir"), "mode": "4755" });
    let mkdir = guest.daemon.post("/vms/web-1/files/mkdir", mode).await;
    mkdir.assert_problem(422, "invalid_request").assert_field("mode");
    assert_eq!(fs::read_to_string(guest.path("file")).unwrap(), "0123456789");
    assert_eq!(guest.names(), ["file"]);
}
