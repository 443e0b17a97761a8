//! Memory of the proxy, whose peers send without limit.

use super::guest::SshGuest;
use super::programs::proxy_of;
use std::fs;
use std::io::Read;
use std::process::Stdio;

const MIB: usize = 1024 * 1024;

/// Returns the largest resident memory of a process so far, in KiB.
fn peak(pid: rustix::process::Pid) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn output_that_the_client_reads_late_does_not_accumulate() {
    let ssh = SshGuest::start().await;
    let mut command =
        ssh.ssh(&["web-1.minions", "--", "head -c 200000000 /dev/zero | tee /dev/stderr; cat"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut first = [0; 1];
    stdout.read_exact(&mut first).unwrap();
    let proxy = proxy_of(child.id());
    let before = peak(proxy);
    let mut left = 200_000_000 - 1;
    let mut buffer = vec![0; MIB];
    while left > 0 {
        left -= stdout.read(&mut buffer).unwrap();
    }
    let after = peak(proxy);
    assert!(after < before + 48 * 1024, "{before} KiB, then {after} KiB");
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}
