//! `exec` on many VMs.

use super::guest::Guest;
use testkit::fake_vmm::{Behaviour, FakeVmm, agent};

/// Starts a daemon with three VMs: `web-1`, and the returned `web-2` and `db`.
async fn three() -> (Guest, [FakeVmm; 2]) {
    let guest = Guest::start().await;
    let vms = ["web-2", "db"].map(|name| {
        let behaviour = Behaviour::Agent(agent().unwrap());
        FakeVmm::start(guest.daemon.sockets(), name, behaviour).unwrap()
    });
    for name in ["web-2", "db"] {
        guest.daemon.until_state(name, "ready").await;
    }
    (guest, vms)
}

fn lines(bytes: &[u8]) -> Vec<&str> {
    let mut lines: Vec<&str> = std::str::from_utf8(bytes).unwrap().lines().collect();
    lines.sort_unstable();
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn each_line_is_prefixed_with_its_vm() {
    let (guest, _vms) = three().await;
    let ran = guest.run(&["exec", "--on", "web-*", "--", "printf", "a\\nb"]);
    assert_eq!(ran.code, 0);
    assert_eq!(lines(&ran.stdout), ["web-1 | a", "web-1 | b", "web-2 | a", "web-2 | b"]);
    assert_eq!(ran.stderr, "2 VMs: 2 ok\n");
    let ran = guest.run(&["exec", "--all", "--", "sh", "-c", "echo no >&2; exit 4"]);
    assert_eq!((ran.code, ran.stdout.len()), (4, 0));
    assert!(ran.stderr.ends_with("3 VMs: 3 exit 4\n"), "{}", ran.stderr);
    assert!(ran.stderr.contains("db | no\n"), "{}", ran.stderr);
    let one = guest.run(&["exec", "--on", "db", "--on", "web-2", "--", "true"]);
    assert_eq!(one.stderr, "2 VMs: 2 ok\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worst_result_is_the_exit_code() {
    let (guest, vms) = three().await;
    let dir = guest.file("first");
    // The first program to create the directory fails.
    let script = format!("mkdir {} 2> /dev/null && exit 3; exit 0", dir.display());
    let ran = guest.run(&["exec", "--all", "--", "sh", "-c", &script]);
    ran.assert(3, "", "3 VMs: 2 ok, 1 exit 3");
    vms[1].switch_to(Behaviour::Refuses);
    guest.daemon.until_state("db", "unreachable").await;
    let ran = guest.run(&["exec", "--all", "--", "true"]);
    ran.assert(125, "", "3 VMs: 2 ok, 1 unreachable").assert(125, "", "db: ");
    vms[1].switch_to(Behaviour::Agent(agent().unwrap()));
    guest.run(&["exec", "--on", "nope*", "--", "true"]).assert(125, "", "error:");
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_outputs_are_printed_once() {
    let (guest, _vms) = three().await;
    let dir = guest.file("first");
    let script = format!("mkdir {} 2> /dev/null && exit 3; echo same", dir.display());
    let ran =
        guest.run(&["exec", "--all", "--group", "--concurrency", "1", "--", "sh", "-c", &script]);
    let text = String::from_utf8(ran.stdout).unwrap();
    let (first, rest) = text.split_once('\n').unwrap();
    assert!(first.starts_with("== ") && first.ends_with(" (1): exit 3"), "{text}");
    assert!(rest.contains(" (2): ok\nsame\n"), "{text}");
    assert_eq!(ran.code, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn json_output_has_one_event_per_line() {
    let (guest, _vms) = three().await;
    let ran = guest.run(&["-o", "json", "exec", "--all", "--", "echo", "hi"]);
    let events: Vec<serde_json::Value> =
        lines(&ran.stdout).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_type = |name: &str| events.iter().filter(|event| event["type"] == name).count();
    assert_eq!((of_type("result"), of_type("summary"), ran.code), (3, 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_hanging_vm_of_fifty_does_not_delay_the_others() {
    let guest = Guest::start().await;
    let mut vms = Vec::new();
    for number in 2..=50 {
        let behaviour = Behaviour::Agent(agent().unwrap());
        vms.push(
            FakeVmm::start(guest.daemon.sockets(), &format!("web-{number}"), behaviour).unwrap(),
        );
    }
    for number in 2..=50 {
        guest.daemon.until_state(&format!("web-{number}"), "ready").await;
    }
    // One program ends with 7; web-50 accepts the request and never answers.
    let script = format!("! mkdir {} 2> /dev/null || exit 7", guest.file("only-one").display());
    vms.last().unwrap().switch_to(Behaviour::Silent);
    let command = ["exec", "--on", "*", "--timeout", "5s", "--", "sh", "-c", &script];
    let ran = guest.run(&[&["-o", "json"], &command[..]].concat());
    let text = String::from_utf8(ran.stdout).unwrap();
    let events: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ends: Vec<_> = events.iter().filter(|event| event["type"] != "heartbeat").collect();
    assert_eq!(ends.len(), 51, "{text}");
    let with_code =
        |code: i64| ends.iter().filter(|event| event["result"]["exit_code"] == code).count();
    assert_eq!((with_code(0), with_code(7)), (48, 1));
    // The VM that hangs comes last, after the results of all others.
    assert_eq!(
        (&ends[49]["type"], &ends[49]["vm"]),
        (&"problem".into(), &"web-50".into()),
        "{text}"
    );
    assert_eq!(
        ends[50],
        &serde_json::json!({ "type": "summary", "total": 50, "succeeded": 48, "failed": 1, "problems": 1, "skipped": 0 })
    );
    assert_eq!(ran.code, 125);
}
