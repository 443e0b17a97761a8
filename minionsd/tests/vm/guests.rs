//! Faults inside a guest: a full disk, a clock that jumps.

use crate::host::{Host, VM};
use serde_json::json;
use testkit::daemon::Reply;

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_whose_disk_is_full_runs_programs() {
    let mut host = Host::start().await;
    // The guest's disk is memory: limited, so that the test does not exhaust the memory instead.
    host.prints("mount -o remount,size=16m /tmp").await;
    let fill = "cat /dev/zero >/tmp/full; : >/tmp/last; head -c 65536 /dev/zero >/tmp/last";
    let full = host.exec(json!({ "command": "sh", "args": ["-c", fill] })).await;
    assert_ne!(full.json["exit_code"], 0, "{full:?}");
    assert!(full.json["stderr"].as_str().unwrap().contains("No space left"), "{full:?}");

    let input = "x".repeat(200_000);
    let echoed = host.exec(json!({ "command": "cat", "stdin": input })).await;
    assert!(echoed.json["stdout"] == input[..], "{:?}", echoed.json["outcome"]);
    let limited =
        host.exec(json!({ "command": "sleep", "args": ["300"], "timeout_ms": 200 })).await;
    assert_eq!(limited.json["outcome"]["type"], "timed_out", "{limited:?}");
    for what in ["health", "status", "network"] {
        assert_eq!(host.get(&format!("/vms/{VM}/{what}")).await.status, 200, "{what}");
    }
    assert_eq!(host.daemon.ended(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_whose_clock_jumps_keeps_its_timers() {
    let mut host = Host::start().await;
    let uptime = async || {
        let health = host.get(&format!("/vms/{VM}/health")).await;
        health.json["uptime_secs"].as_u64().unwrap()
    };
    let began = uptime().await;
    let kept = json!({ "command": "echo", "args": ["kept"], "id": "kept", "detach": true });
    assert_eq!(host.exec(kept).await.status, 202);
    host.until(&format!("/vms/{VM}/execs/kept"), |exec| exec.json["state"] == "ended").await;

    for (date, year) in [("2038-01-01 00:00:00", "2038"), ("1971-01-01 00:00:00", "1971")] {
        // One program that its time limit ends, and one that only a limit affected by the jump would end.
        let limited = json!({ "command": "sleep", "args": ["300"], "timeout_ms": 2000 });
        let roomy = json!({
            "command": "sh",
            "args": ["-c", "touch /tmp/up; sleep 3; echo over"],
            "timeout_ms": 600_000,
        });
        let jump = async {
            host.prints("until [ -e /tmp/up ]; do sleep 0.01; done; rm /tmp/up").await;
            host.prints(&format!("date -s '{date}'; date +%Y")).await
        };
        let (limited, roomy, jumped) = tokio::join!(host.exec(limited), host.exec(roomy), jump);
        assert!(jumped.ends_with(year), "{jumped}");
        assert_eq!(limited.json["outcome"]["type"], "timed_out", "{limited:?}");
        assert!(limited.json["duration_ms"].as_u64().unwrap() >= 2000, "{limited:?}");
        assert_eq!(
            (&roomy.json["exit_code"], &roomy.json["stdout"]),
            (&0.into(), &"over\n".into())
        );
        // The exec is not forgotten, as after hours, and the VM is not unreachable.
        let kept = host.get(&format!("/vms/{VM}/execs/kept")).await;
        assert_eq!(kept.json["state"], "ended", "{kept:?}");
        let since = uptime().await - began;
        assert!(since < 600, "the uptime grew by {since} s");
        assert_eq!(host.look().await.json["state"], "ready");
    }
    assert_eq!(host.daemon.ended(), None);
}

/// Commands that create a cgroup v1 freezer. It delays even SIGKILL, like a device that does not answer.
const FREEZER: &str = "mkdir -p /tmp/freezer && mount -t cgroup -o freezer freezer /tmp/freezer && \
                       mkdir /tmp/freezer/frozen";

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_cannot_be_killed_keeps_its_id_until_it_ends() {
    let mut host = Host::start().await;
    host.prints(FREEZER).await;
    let freeze = "echo $$ >/tmp/freezer/frozen/cgroup.procs; exec sleep 1000";
    let start = |id: &str, more: serde_json::Value| {
        let mut body = json!({ "command": "sh", "args": ["-c", freeze], "id": id });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        host.exec(body)
    };
    assert_eq!(start("left", json!({ "detach": true })).await.status, 202);
    let frozen = async {
        host.prints(
            "until [ \"$(wc -l </tmp/freezer/frozen/cgroup.procs)\" = 2 ]; do sleep 0.05; done",
        )
        .await;
        host.prints("echo FROZEN >/tmp/freezer/frozen/freezer.state").await;
    };
    let (limited, ()) = tokio::join!(start("limited", json!({ "timeout_ms": 2000 })), frozen);
    limited.assert_problem(504, "agent_timeout");
    let removed = host.delete(&format!("/vms/{VM}/execs/left?timeout_ms=1000")).await;
    removed.assert_problem(504, "agent_timeout");
    for id in ["limited", "left"] {
        let exec = host.get(&format!("/vms/{VM}/execs/{id}")).await;
        assert_eq!((exec.status, &exec.json["state"]), (200, &json!("running")), "{exec:?}");
        assert_eq!(exec.json["end_requested"], true, "{exec:?}");
        let other = host.exec(json!({ "command": "true", "id": id })).await;
        other.assert_problem(409, "exec_conflict");
    }
    host.prints("echo THAWED >/tmp/freezer/frozen/freezer.state").await;
    let ended = |exec: &Reply| exec.json["state"] == "ended";
    let limited = host.until(&format!("/vms/{VM}/execs/limited"), ended).await;
    assert_eq!(limited.json["outcome"]["type"], "timed_out", "{limited:?}");
    host.until(&format!("/vms/{VM}/execs/left"), |exec| ended(exec) || exec.status == 410).await;
    host.delete(&format!("/vms/{VM}/execs/limited")).await;
    host.get(&format!("/vms/{VM}/execs/limited")).await.assert_problem(410, "exec_gone");
    assert_eq!(host.daemon.ended(), None);
}
