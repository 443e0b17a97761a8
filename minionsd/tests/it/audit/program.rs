//! The real program with a VM and an audit file.

use crate::callers::{GROUP, OTHER, TOKEN, User, Way, bearer, curl};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use testkit::daemon::DEADLINE;
use testkit::fake_vmm::{Behaviour, FakeVmm, agent};
use testkit::minionsd::Minionsd;
use testkit::wait::until_async;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

/// Running `minionsd` with a VM `web-1`.
pub(crate) struct Program {
    daemon: Minionsd,
    audit: PathBuf,
    origin: String,
    _vm: FakeVmm,
    /// Standard error, kept open but not read.
    _stderr: Option<pipe::Receiver>,
}

impl Program {
    pub(crate) async fn start() -> Self {
        Self::with("").await
    }

    /// Starts the program with more settings in its configuration file.
    pub(crate) async fn with(settings: &str) -> Self {
        Self::auditing_to(None, settings).await
    }

    /// Starts the program with its audit entries in this file.
    pub(crate) async fn auditing_to(audit: Option<&Path>, settings: &str) -> Self {
        let mut program = Self::spawn(audit, settings, false);
        program.origin = program.until("the daemon serves", |program| program.daemon.url()).await;
        program
            .until("the VM is ready", |program| program.log().contains("ready").then_some(()))
            .await;
        program
    }

    /// Starts the program with a pipe as standard error, which is read only until the VM is ready.
    pub(crate) async fn unread() -> Self {
        let mut program = Self::spawn(None, "", true);
        let mut stderr =
            pipe::Receiver::from_owned_fd(program.daemon.stderr().unwrap().into()).unwrap();
        let mut log = Vec::new();
        let has = |log: &[u8], word: &str| String::from_utf8_lossy(log).contains(word);
        while !(has(&log, "ready") && has(&log, "serving tcp")) {
            let read = tokio::time::timeout(DEADLINE, stderr.read_buf(&mut log)).await;
            assert_ne!(read.expect("the daemon writes its log").unwrap(), 0, "the daemon ended");
        }
        fs::write(program.path("log"), &log).unwrap();
        program.origin = program.daemon.url().unwrap();
        program._stderr = Some(stderr);
        program
    }

    fn spawn(audit: Option<&Path>, settings: &str, piped: bool) -> Self {
        crate::callers::must_be_root();
        let config = format!("operator_group = '{GROUP}'\n{settings}");
        let builder = Minionsd::builder().listen("127.0.0.1:0").config(&config).token(TOKEN);
        let audit = audit.map_or_else(|| builder.path().join("audit"), Path::to_owned);
        let vm = Behaviour::Agent(agent().unwrap());
        let vm = FakeVmm::start(builder.path(), "web-1", vm).unwrap();
        let builder = builder.args(["--log-level", "debug", "--audit-log"]).arg(&audit);
        let builder = if piped { builder.pipe_log() } else { builder };
        Self { daemon: builder.spawn(), audit, origin: String::new(), _vm: vm, _stderr: None }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.daemon.dir().join(name)
    }

    pub(crate) fn log(&self) -> String {
        self.daemon.log()
    }

    /// Waits until `answer` returns a value.
    pub(crate) async fn until<T>(&self, what: &str, answer: impl Fn(&Self) -> Option<T>) -> T {
        // The panic at the deadline shows the end of the log.
        let end = || self.log().lines().rev().take(5).map(str::to_owned).collect::<Vec<_>>();
        until_async(what, async || answer(self).ok_or_else(end)).await
    }

    pub(crate) fn address(&self) -> &str {
        self.origin.strip_prefix("http://").unwrap()
    }

    /// Returns the number of TCP connections that the program still has open.
    pub(crate) fn connections(&self) -> usize {
        let fds = format!("/proc/{}/fd", self.daemon.pid());
        let sockets =
            fs::read_dir(fds).unwrap().filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
        let sockets: Vec<_> = sockets.filter_map(|to| Some(to.to_str()?.to_owned())).collect();
        // `sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode`
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
        let listening = "0A";
        rows.filter(|row| row[3] != listening && sockets.contains(&format!("socket:[{}]", row[9])))
            .count()
    }

    /// Returns the audit entries so far. An incomplete last line is left out.
    pub(crate) fn lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.audit).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub(crate) fn lines_of(&self, id: &str) -> Vec<Value> {
        let lines = self.lines().into_iter();
        lines.filter(|line| line["span"]["request_id"] == id).collect()
    }

    /// Waits for the last entry about this request and returns its fields.
    pub(crate) async fn line(&self, id: &str) -> Value {
        let last = |program: &Self| {
            program.lines_of(id).pop().filter(|line| line["fields"]["stage"] != "begin")
        };
        self.until(&format!("the last audit entry about {id} is written"), last).await["fields"]
            .clone()
    }

    /// Sends a request: over the Unix socket if its mode lets `user` connect, otherwise over TCP.
    pub(crate) async fn ask(
        &self,
        id: &str,
        user: User,
        method: &str,
        path: &str,
        more: &[&str],
    ) -> u16 {
        let id = format!("X-Request-Id: {id}");
        let more = [&["--request", method, "--header", &id], more].concat();
        let socket = self.path("minionsd.sock");
        let way = if user.uid == OTHER.uid { Way::Tcp(&self.origin) } else { Way::Unix(&socket) };
        curl(user, way, path, &more).await.unwrap().status
    }

    /// Returns the number of refused calls of this uid, summed over all entries.
    pub(crate) fn refused(&self, uid: u32) -> u64 {
        let lines = self.lines().into_iter().map(|line| line["fields"].clone());
        let of_uid = lines.filter(|line| line["stage"] == "refused" && line["uid"] == uid);
        of_uid.map(|line| line["count"].as_u64().unwrap()).sum()
    }
}

/// Returns the bytes of a request that runs a program.
pub(crate) fn request(id: &str, token: Option<&str>, body: &str) -> Vec<u8> {
    let length = body.len();
    let token = token.map(|token| format!("{}\r\n", bearer(token))).unwrap_or_default();
    let head = format!(
        "POST /vms/web-1/exec HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: {id}\r\n{token}\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body.as_bytes()].concat()
}

/// Changes the user of the calling thread only.
pub(crate) fn become_other() {
    let gid = rustix::process::Gid::from_raw(OTHER.gid);
    let uid = rustix::process::Uid::from_raw(OTHER.uid);
    rustix::thread::set_thread_groups(&[]).unwrap();
    rustix::thread::set_thread_gid(gid).unwrap();
    rustix::thread::set_thread_uid(uid).unwrap();
}
