use super::*;
use crate::exec::ProgramGroups;
use crate::protection::ProgramDefaults;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;
use tokio::time::{advance, pause, resume, sleep};

/// Deadline for hooks that end by themselves.
const LONG: Duration = Duration::from_secs(60);

fn executor() -> Executor {
    // Hooks ignore `--exec-user`; this user does not exist.
    let (user, group) = (Some("no-such-user".to_owned()), format!("hooks-{}", std::process::id()));
    Executor::new(LONG, user, ProgramDefaults::default(), ProgramGroups::Below(group))
}

fn directory(hooks: &[(&str, &str, u32)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, script, mode) in hooks {
        let path = directory.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(*mode)).unwrap();
    }
    directory
}

fn settings(directory: &Path, deadline: Duration, after_failure: AfterFailure) -> HookSettings {
    let directory_name = directory.display().to_string();
    let environment = [("HOOK_TEST_DIRECTORY".to_owned(), directory_name)].into();
    HookSettings { directory: directory.to_owned(), deadline, environment, after_failure }
}

async fn run_all(settings: &HookSettings) -> Result<Vec<HookReport>, HookError> {
    let (_stopper, stop) = watch::channel(false);
    run(&executor(), settings, stop).await
}

async fn reports(hooks: &TempDir, deadline: Duration, after: AfterFailure) -> Vec<HookReport> {
    run_all(&settings(hooks.path(), deadline, after)).await.unwrap()
}

fn ends(reports: &[HookReport]) -> Vec<(&str, bool)> {
    reports.iter().map(|report| (report.path.rsplit('/').next().unwrap(), report.ok)).collect()
}

#[tokio::test]
async fn programs_with_a_plain_name_run_in_the_order_of_their_names() {
    let note = "echo $(basename $0) >> $HOOK_TEST_DIRECTORY/order.txt";
    let hooks = directory(&[
        ("20-b", note, 0o755),
        ("10-a", note, 0o700),
        ("30-c.dpkg-old", note, 0o755),
        ("40-d~", note, 0o755),
        ("50-not-executable", note, 0o644),
    ]);
    fs::create_dir(hooks.path().join("60-directory")).unwrap();
    symlink("/nonexistent", hooks.path().join("70-dangling")).unwrap();
    symlink("10-a", hooks.path().join("80_link")).unwrap();
    let reports = reports(&hooks, LONG, AfterFailure::Stop).await;
    assert_eq!(ends(&reports), [("10-a", true), ("20-b", true), ("80_link", true)]);
    assert_eq!(reports[0].detail, "exited with status 0");
    let order = fs::read_to_string(hooks.path().join("order.txt")).unwrap();
    assert_eq!(order, "10-a\n20-b\n80_link\n");
}

#[tokio::test]
async fn a_missing_directory_has_no_hooks() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(&directory.path().join("missing"), LONG, AfterFailure::Stop);
    assert_eq!(run_all(&settings).await.unwrap(), []);
}

#[tokio::test]
async fn a_failure_is_reported_with_the_end_of_its_output_and_the_rest_runs_only_on_request() {
    let hooks = directory(&[
        (
            "10-fails",
            "head -c 100000 /dev/zero | tr '\\0' x >&2; echo the reason >&2; exit 3",
            0o755,
        ),
        ("20-next", "exit 0", 0o755),
    ]);
    let stopped = reports(&hooks, LONG, AfterFailure::Stop).await;
    assert_eq!(ends(&stopped), [("10-fails", false)]);
    let detail = &stopped[0].detail;
    assert!(detail.starts_with("exited with status 3: xxx"), "{detail}");
    assert!(detail.ends_with("xthe reason") && detail.len() < 500, "{detail}");
    let continued = reports(&hooks, LONG, AfterFailure::Continue).await;
    assert_eq!(ends(&continued), [("10-fails", false), ("20-next", true)]);
}

#[tokio::test]
async fn a_hook_that_hangs_is_ended_with_its_children_at_its_deadline() {
    // `setsid` leaves the process group; `trap` survives TERM.
    let hooks = directory(&[(
        "10-hangs",
        "trap '' TERM; setsid sleep 1000 & echo $! > $HOOK_TEST_DIRECTORY/pid.txt; wait; sleep 1000",
        0o755,
    )]);
    let reports = reports(&hooks, Duration::from_millis(500), AfterFailure::Stop).await;
    assert_eq!(ends(&reports), [("10-hangs", false)]);
    assert_eq!(reports[0].detail, "was ended at its deadline of 500 ms");
    let pid = fs::read_to_string(hooks.path().join("pid.txt")).unwrap();
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "still running: {stat}");
}

/// FUSE file system whose server accepts requests and never replies: a program that opens a file of it cannot be killed.
/// It is mounted in a mount namespace of its own, and ends with its server.
struct SilentFileSystem {
    server: Child,
    directory: TempDir,
}

/// Replies to the first request, FUSE_INIT with the unique number 2, as version 7.31, and accepts the next one.
const SILENT_SERVER: &str = r#"cd "$0" && mkdir m && exec 9<>/dev/fuse &&
    mount -i -t fuse -o fd=9,rootmode=40000,user_id=0,group_id=0 silent m &&
    dd bs=65536 count=1 <&9 >/dev/null 2>&1 &&
    { printf 'P\000\000\000\000\000\000\000\002\000\000\000\000\000\000\000\007\000\000\000\037\000\000\000'
      printf '\000\000\000\000\000\000\000\000\000\000\000\000\000\020\000\000\001\000\000\000'
      head -c 36 /dev/zero; } >reply && dd bs=80 <reply >&9 2>/dev/null && touch serves &&
    dd bs=65536 count=1 <&9 >/dev/null 2>&1 && touch requested && exec sleep 1000"#;

impl SilentFileSystem {
    async fn mount() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", SILENT_SERVER]).arg(directory.path());
        let server = command.stdin(Stdio::null()).spawn().unwrap();
        let mounted = Self { server, directory };
        mounted.until("serves").await;
        mounted
    }

    async fn until(&self, file: &str) {
        let begun = Instant::now();
        while !self.directory.path().join(file).exists() {
            assert!(begun.elapsed() < LONG, "no {file}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Returns a script whose process becomes one that opens a file of the file system.
    fn open(&self) -> String {
        let (server, directory) = (self.server.id(), self.directory.path().display());
        format!("exec nsenter --mount --target {server} cat {directory}/m/file")
    }
}

impl Drop for SilentFileSystem {
    fn drop(&mut self) {
        // The kernel ends all requests when no process has the device open.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[tokio::test]
async fn a_hook_that_cannot_be_killed_is_left_and_the_next_one_runs() {
    let silent = SilentFileSystem::mount().await;
    let hooks = directory(&[("10-stuck", &silent.open(), 0o755), ("20-next", "echo ran", 0o755)]);
    let settings = settings(hooks.path(), LONG, AfterFailure::Continue);
    let (executor, (_stopper, stop)) = (executor(), watch::channel(false));
    let mut reports = Vec::new();
    let run = run_each(&executor, &settings, stop, |report| {
        if reports.is_empty() {
            // The next hook takes real time.
            resume();
        }
        reports.push(report);
    });
    let (run, ()) = tokio::join!(timeout(Duration::from_hours(1), run), async {
        silent.until("requested").await;
        pause();
        advance(LONG).await;
    });
    run.expect("the hook is waited for forever").unwrap();
    assert_eq!(ends(&reports), [("10-stuck", false), ("20-next", true)]);
    let details: Vec<_> = reports.iter().map(|report| report.detail.as_str()).collect();
    let stuck = "did not end at its deadline of 60000 ms, and could not be killed";
    assert_eq!(details, [stuck, "exited with status 0: ran"]);
}

#[tokio::test]
async fn hooks_that_other_users_can_change_are_not_run() {
    let hooks = directory(&[("10-writable", "exit 0", 0o777), ("20-own", "exit 0", 0o755)]);
    let reports = reports(&hooks, LONG, AfterFailure::Continue).await;
    assert_eq!(ends(&reports), [("10-writable", false), ("20-own", true)]);
    assert!(reports[0].detail.contains("can be changed by users other than"), "{:?}", reports[0]);
    fs::set_permissions(hooks.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let error = run_all(&settings(hooks.path(), LONG, AfterFailure::Stop)).await;
    assert!(matches!(error, Err(HookError::Untrusted { .. })), "{error:?}");
}

#[tokio::test]
async fn a_directory_with_too_many_hooks_runs_none() {
    let hooks = directory(&[]);
    for number in 0..=MAX_HOOKS {
        fs::write(hooks.path().join(format!("{number}")), "").unwrap();
    }
    let error = run_all(&settings(hooks.path(), LONG, AfterFailure::Stop)).await;
    assert!(matches!(error, Err(HookError::TooMany { .. })), "{error:?}");
}

#[tokio::test]
async fn a_link_into_a_directory_of_other_users_is_not_followed_and_one_to_a_trusted_file_is() {
    let hooks = directory(&[("10-own", "exit 0", 0o755)]);
    let shared = hooks.path().join("shared.d");
    fs::create_dir(&shared).unwrap();
    fs::copy(hooks.path().join("10-own"), shared.join("program")).unwrap();
    symlink(hooks.path().join("10-own"), shared.join("link")).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).unwrap();
    symlink("shared.d/program", hooks.path().join("20-program")).unwrap();
    symlink("shared.d/link", hooks.path().join("30-link")).unwrap();
    symlink("shared.d/../10-own", hooks.path().join("40-through")).unwrap();
    symlink(hooks.path().join("10-own"), hooks.path().join("50-own")).unwrap();
    let reports = reports(&hooks, LONG, AfterFailure::Continue).await;
    let refused = ["20-program", "30-link", "40-through"].map(|name| (name, false));
    assert_eq!(ends(&reports), [&[("10-own", true)][..], &refused, &[("50-own", true)]].concat());
}

#[tokio::test]
async fn a_directory_that_other_users_can_replace_has_no_hooks() {
    let hooks = directory(&[]);
    let inner = hooks.path().join("freeze.d");
    fs::create_dir(&inner).unwrap();
    fs::set_permissions(hooks.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let settings = settings(&inner, LONG, AfterFailure::Stop);
    let error = run_all(&settings).await;
    assert!(matches!(error, Err(HookError::Untrusted { .. })), "{error:?}");
    // In such a directory, users can only replace their own entries.
    fs::set_permissions(hooks.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    assert_eq!(run_all(&settings).await.unwrap(), []);
}

#[tokio::test]
async fn a_hook_is_judged_when_the_hooks_before_it_have_run() {
    let opens = "chmod 777 $HOOK_TEST_DIRECTORY/20-opened; rm $HOOK_TEST_DIRECTORY/30-removed";
    let hooks = directory(&[
        ("10-opens", opens, 0o755),
        ("20-opened", "exit 0", 0o755),
        ("30-removed", "exit 0", 0o755),
    ]);
    let reports = reports(&hooks, LONG, AfterFailure::Continue).await;
    assert_eq!(ends(&reports), [("10-opens", true), ("20-opened", false)]);
}
