//! SIGKILL of client, daemon and agent in the middle of copies: no incomplete file under a final name, no temporary
//! file, no process left.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File},
    io::Write,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};

use super::guest::{ClientGuest, VM};
use crate::command;

/// Directory of this check in the guest.
const GUEST: &str = "/var/tmp/kill";

/// Number of bytes that the client has read or written when the kill comes: some files of the tree are complete then.
const MIDDLE: u64 = 40 << 20;

/// Deadline for [`MIDDLE`], and for the end of a client whose peer was killed. A client waits up to 60 s for a new
/// daemon.
const PATIENCE: Duration = Duration::from_secs(120);

/// Prints the processes of the agent's program, of which only the service itself must remain.
const AGENTS: &str = r"ls -l /proc/[0-9]*/exe 2>/dev/null |
    sed -nE 's|.*/proc/([0-9]+)/exe -> .*/minions-agent.*|\1|p'";

/// Prints the pid of the service.
const SERVICE: &str = "systemctl show -P MainPID minions-agent";

/// Prints digests and names of all files beneath a directory, also of hidden ones.
const DIGESTS: &str = "find . -type f -exec sha256sum {} +";

#[derive(Debug, Clone, Copy)]
enum KilledProcess {
    Client,
    Daemon,
    Agent,
}

#[derive(Debug, Clone, Copy)]
enum CopyDirection {
    In,
    Out,
}

/// Name in the source directory: one file of 128 MiB, or a tree of eight files with 16 MiB each.
#[derive(Debug, Clone, Copy)]
enum CopySource {
    File,
    Tree,
}

#[derive(Debug, Clone, Copy)]
struct KillCase {
    killed: KilledProcess,
    direction: CopyDirection,
    source: CopySource,
}

/// Result of one case without a fault.
#[derive(Debug)]
struct KillResult {
    status: ExitStatus,
    complete: usize,
    /// Time from the kill until only the agent's service runs in the guest.
    cleaned: Duration,
}

pub(super) fn check(guest: &mut ClientGuest) -> anyhow::Result<String> {
    let work = guest.work("kill")?;
    let digests = prepare(guest, &work)?;
    let mut log = File::create(work.join("log")).context("cannot create the log")?;
    let (mut results, mut faults) = (Vec::new(), Vec::new());
    for killed in [KilledProcess::Client, KilledProcess::Agent, KilledProcess::Daemon] {
        for direction in [CopyDirection::In, CopyDirection::Out] {
            for source in [CopySource::File, CopySource::Tree] {
                let case = KillCase { killed, direction, source };
                let result = case.run(guest, &work, &digests);
                writeln!(log, "{case}: {result:?}").context("cannot write the log")?;
                match result {
                    Ok(result) => results.push(result),
                    Err(error) => faults.push(format!("{case}: {error:#}")),
                }
                recover(guest)?;
            }
        }
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    guest.shell(&format!("rm -r {GUEST}"))?;
    fs::remove_dir_all(&work)?;
    let slowest = results.iter().map(|result| result.cleaned).max().unwrap_or_default();
    let complete: usize = results.iter().map(|result| result.complete).sum();
    let succeeded = results.iter().filter(|result| result.status.success()).count();
    Ok(format!(
        "{} kills: no incomplete file, no temporary file; {complete} complete files; {succeeded} copies succeeded \
         nevertheless; processes in the guest ended within {:.1} s;",
        results.len(),
        slowest.as_secs_f64()
    ))
}

/// Makes the sources on both sides, and returns the digest of each file by its path in a copy.
fn prepare(guest: &ClientGuest, work: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let split = "mkdir tree; cd tree; split --bytes=16M ../file part-";
    let make = format!("mkdir source; cd source; head -c 128M /dev/urandom >file; {split}");
    command::run(Command::new("sh").args(["-ec", &make]).current_dir(work))?;
    guest.shell(&format!("rm -rf {GUEST}; mkdir -p {GUEST}/source"))?;
    let file = format!("{VM}:{GUEST}/source/file");
    command::run(guest.ctl().arg("cp").arg(work.join("source/file")).arg(file))?;
    guest.shell(&format!("cd {GUEST}/source; {split}"))?;
    let list =
        |dir: &str| Command::new("sh").args(["-ec", DIGESTS]).current_dir(work.join(dir)).output();
    let here = String::from_utf8_lossy(&list("source")?.stdout).into_owned();
    let there = guest.shell(&format!("cd {GUEST}/source; {DIGESTS}"))?;
    let (here, there) = (parsed(&here), parsed(&there));
    ensure!(here == there && here.len() == 9, "the sources differ: {here:?} {there:?}");
    Ok(here)
}

/// Returns digests by name.
fn parsed(list: &str) -> BTreeMap<String, String> {
    let line = |line: &str| {
        let (digest, name) = line.split_once("  ")?;
        Some((name.to_owned(), digest.to_owned()))
    };
    list.lines().filter_map(line).collect()
}

/// Starts what was killed, and waits until the VM is ready.
fn recover(guest: &mut ClientGuest) -> anyhow::Result<()> {
    guest.ensure_daemon()?;
    guest.wait_ready()
}

impl KillCase {
    fn run(
        self,
        guest: &mut ClientGuest,
        work: &Path,
        digests: &BTreeMap<String, String>,
    ) -> anyhow::Result<KillResult> {
        let out = work.join("out");
        fs::create_dir_all(&out)?;
        guest.shell(&format!("mkdir -p {GUEST}/in"))?;
        let service = guest.shell(SERVICE)?;
        ensure!(guest.shell(AGENTS)? == service, "a process of the agent runs before the copy");

        let mut copy = self.command(guest, work);
        let mut child = copy.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        wait_for_middle(&mut child)?;
        let start = Instant::now();
        match self.killed {
            KilledProcess::Client => child.kill()?,
            KilledProcess::Daemon => {
                guest.kill_daemon();
                guest.start_daemon()?;
            }
            // Killed in the middle of this call, which therefore fails.
            KilledProcess::Agent => {
                let _ = guest.shell(&format!("kill -KILL {service}"));
            }
        }
        let status = wait_for_end(&mut child)?;
        let cleaned = wait_for_processes(guest, start)?;

        let here = Command::new("sh").args(["-ec", DIGESTS]).current_dir(&out).output()?;
        let here = parsed(&String::from_utf8_lossy(&here.stdout));
        let there = parsed(&guest.shell(&format!("cd {GUEST}/in; {DIGESTS}"))?);
        fs::remove_dir_all(&out)?;
        guest.shell(&format!("rm -r {GUEST}/in"))?;
        for (name, digest) in here.iter().chain(&there) {
            let expected = digests.get(name);
            ensure!(expected.is_some(), "a temporary file is left: {name}");
            ensure!(expected == Some(digest), "an incomplete file has its final name: {name}");
        }
        let complete = here.len() + there.len();
        let whole = if matches!(self.source, CopySource::File) { 1 } else { 8 };
        ensure!(!status.success() || complete == whole, "a success with {complete} files");
        Ok(KillResult { status, complete, cleaned })
    }

    fn command(self, guest: &ClientGuest, work: &Path) -> Command {
        let name = if matches!(self.source, CopySource::File) { "file" } else { "tree" };
        let mut copy = guest.ctl();
        copy.args(["cp", "-a"]);
        match self.direction {
            CopyDirection::In => {
                copy.arg(work.join("source").join(name)).arg(format!("{VM}:{GUEST}/in/"))
            }
            CopyDirection::Out => {
                copy.arg(format!("{VM}:{GUEST}/source/{name}")).arg(work.join("out"))
            }
        };
        copy
    }
}

impl fmt::Display for KillCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} killed, copy {:?} of a {:?}", self.killed, self.direction, self.source)
    }
}

/// Waits until the client has read or written [`MIDDLE`] bytes of files.
fn wait_for_middle(child: &mut Child) -> anyhow::Result<()> {
    let (start, path) = (Instant::now(), format!("/proc/{}/io", child.id()));
    loop {
        let io = fs::read_to_string(&path).unwrap_or_default();
        let value = |name| io.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        let moved: Option<u64> = value("rchar:").max(value("wchar:"));
        if moved.is_some_and(|bytes| bytes >= MIDDLE) {
            return Ok(());
        }
        if let Some(status) = child.try_wait()? {
            bail!("the copy ended before the kill: {status}");
        }
        ensure!(start.elapsed() < PATIENCE, "the copy does not advance: {io}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn wait_for_end(child: &mut Child) -> anyhow::Result<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if start.elapsed() > PATIENCE {
            child.kill()?;
            child.wait()?;
            bail!("minionsctl cp still ran {PATIENCE:?} after the kill");
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until the agent answers, and the only process of its program is the service. Returns the time since `start`.
fn wait_for_processes(guest: &ClientGuest, start: Instant) -> anyhow::Result<Duration> {
    loop {
        let service = guest.shell(SERVICE);
        let agents = guest.shell(AGENTS);
        // Errors: the agent starts again.
        if let (Ok(service), Ok(agents)) = (&service, &agents)
            && service == agents
        {
            return Ok(start.elapsed());
        }
        let late = start.elapsed() > PATIENCE;
        ensure!(!late, "processes still run in the guest: {agents:?}; the service is {service:?}");
        thread::sleep(Duration::from_millis(100));
    }
}
