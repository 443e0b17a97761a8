//! Detached programs: listing, reading, attaching, signalling and removing them.

use super::guest::{Guest, feed};
use crate::shared::command::Running;
use testkit::wait::until;

#[tokio::test(flavor = "multi_thread")]
async fn a_detached_program_can_be_listed_read_followed_and_waited_for() {
    let guest = Guest::start().await;
    let fifo = guest.fifo("fifo");
    let script = format!("echo one; echo two >&2; cat {}; exit 5", fifo.display());
    let start = ["exec", "-d", "--id", "job", "-e", "A=B", "web-1", "--", "sh", "-c", &script];
    let started = guest.run(&start);
    assert_eq!((started.code, &started.stdout[..]), (0, &b"job\n"[..]), "{}", started.stderr);

    until("the output is written", || guest.run(&["logs", "web-1", "job"]).stderr == "two\n");
    let logs = guest.run(&["logs", "web-1", "job"]);
    assert_eq!((logs.code, &logs.stdout[..], logs.stderr.as_str()), (0, &b"one\n"[..], "two\n"));
    let ps = guest.run(&["ps", "web-1"]);
    ps.assert(0, "ID", "").assert(0, "job", "").assert(0, "running", "").assert(0, "sh -c '", "");

    let mut follower = Running::start(&mut guest.ctl(&["logs", "-f", "web-1", "job"]));
    assert_eq!(follower.line(), "one");
    let waiting = Running::start(&mut guest.ctl(&["wait", "web-1", "job"]));
    guest.run(&["--timeout", "1ms", "wait", "web-1", "job"]).assert(
        125,
        "",
        "job is still running",
    );
    feed(&fifo, "three\n");
    follower.end().assert(0, "three\n", "two\n");
    waiting.end().assert(5, "job ended with 5", "");
    let waited = guest.run(&["-o", "json", "wait", "web-1", "job"]);
    assert_eq!((waited.code, &waited.json()["exit_code"]), (5, &5.into()));
    guest.run(&["ps", "-a", "web-1"]).assert(0, "ended", "");
    let running = guest.run(&["ps", "web-1"]);
    assert!(!String::from_utf8_lossy(&running.stdout).contains("job"));
    guest.run(&["logs", "-f", "web-1", "job"]).assert(0, "one\nthree\n", "two\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn attaching_prints_earlier_output_later_output_and_the_end() {
    let guest = Guest::start().await;
    let fifo = guest.fifo("fifo");
    let script = format!("echo early; cat {}; exit 4", fifo.display());
    guest
        .run(&["exec", "-d", "--id", "a", "web-1", "--", "sh", "-c", &script])
        .assert(0, "a\n", "");
    let mut attached = Running::start(&mut guest.ctl(&["attach", "web-1", "a"]));
    assert_eq!(attached.line(), "early");
    feed(&fifo, "late\n");
    attached.end().assert(4, "late\n", "");
    guest.run(&["attach", "web-1", "a"]).assert(4, "early\nlate\n", "");
    guest.run(&["attach", "web-1", "nope"]).assert(125, "", "error:");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_client_takes_the_program_over() {
    let guest = Guest::start().await;
    let fifo = guest.fifo("fifo");
    let script = format!("echo up; cat {}", fifo.display());
    let mut first =
        Running::start(&mut guest.ctl(&["exec", "--id", "x", "web-1", "--", "sh", "-c", &script]));
    assert_eq!(first.line(), "up");
    let mut second = Running::start(&mut guest.ctl(&["attach", "web-1", "x"]));
    assert_eq!(second.line(), "up");
    first.end().assert(125, "", "taken over by another client");
    feed(&fifo, "down\n");
    second.end().assert(0, "down\n", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_can_be_signalled_and_removed() {
    let guest = Guest::start().await;
    let start = |id: &str| {
        guest.run(&["exec", "-d", "--id", id, "web-1", "--", "sleep", "1000"]).assert(0, id, "");
    };
    start("term");
    guest.run(&["kill", "web-1", "term"]).assert(0, "", "");
    guest.run(&["wait", "web-1", "term"]).assert(143, "ended by signal 15 (TERM)", "");
    start("usr1");
    guest.run(&["kill", "web-1", "usr1", "-s", "SIGUSR1"]).assert(0, "", "");
    guest.run(&["wait", "web-1", "usr1"]).assert(138, "(USR1)", "");
    start("gone");
    guest.run(&["kill", "web-1", "gone", "--remove"]).assert(0, "removed: gone", "");
    let left = guest.run(&["ps", "-a", "web-1"]);
    assert!(!String::from_utf8_lossy(&left.stdout).contains("gone"));
    guest.run(&["wait", "web-1", "gone"]).assert(125, "", "error:");
    guest.run(&["kill", "web-1", "gone"]).assert(1, "", "error:");
    guest.run(&["kill", "web-1", "term", "-s", "NOPE"]).assert(2, "", "invalid value 'NOPE'");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_start_twice_runs_the_program_once() {
    let guest = Guest::start().await;
    let count = guest.file("count");
    let script = format!("echo run >> {}; echo out", count.display());
    let start = ["exec", "--id", "once", "web-1", "--", "sh", "-c", &script];
    guest.run(&start).assert(0, "out\n", "");
    guest.run(&start).assert(0, "out\n", "");
    assert_eq!(std::fs::read_to_string(count).unwrap(), "run\n");
    guest.run(&["exec", "--id", "once", "web-1", "--", "true"]).assert(125, "", "error:");
}

#[tokio::test(flavor = "multi_thread")]
async fn control_characters_in_a_listed_program_are_escaped() {
    let guest = Guest::start().await;
    guest.run(&["exec", "web-1", "--", "true", "\u{1b}[2J"]).assert(0, "", "");
    let listed = guest.run(&["ps", "-a", "web-1"]);
    listed.assert(0, "\\u{1b}[2J", "");
    assert!(!listed.stdout.contains(&0x1b));
}
