//! The local terminal while a remote program uses it.

use super::guest::Guest;
use super::restarts::vm;
use crate::shared::command::{ctl, pid};
use crate::shared::process;
use crate::shared::pty::Pty;
use rustix::process::{Signal, kill_process};

/// Arguments for a shell with a known prompt.
const SHELL: [&str; 8] = ["exec", "-it", "-e", "PS1=now> ", "web-1", "--", "sh", "-i"];

#[tokio::test(flavor = "multi_thread")]
async fn an_interactive_shell_works() {
    let guest = Guest::start().await;
    let mut pty = Pty::start(&guest.ctl(&SHELL));
    pty.shows("now> ");
    pty.types("tty > /dev/null && echo $TERM; stty size\r");
    pty.shows("xterm-of-the-test\r\n24 80\r\n");
    // The shell's child prints it, because dash loses a signal that arrives while it forks (`vforked`).
    pty.types("sh -c \"echo st''arted; exec sleep 1000\"; echo not reached\r");
    pty.shows("started\r\n");
    pty.types("\u{3}");
    pty.shows("now> ");
    pty.types("echo code $?; exit 6\r");
    pty.shows("code 130");
    assert_eq!(pty.code(), Some(6));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_terminal_size_is_passed_on() {
    let guest = Guest::start().await;
    let script = "trap 'stty size' WINCH; echo go; while :; do sleep 0.05; done";
    let mut pty = Pty::start(&guest.ctl(&["exec", "-it", "web-1", "--", "sh", "-c", script]));
    pty.shows("go\r\n");
    pty.resize(40, 132);
    pty.shows("40 132\r\n");
    pty.types("\r~.");
    assert_eq!(pty.code(), Some(125));
}

type Way = fn(&mut Pty);

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_leave_restores_the_terminal() {
    let guest = Guest::start().await;
    let ways: [(&str, Way, i32); 4] = [
        ("exit", |pty| pty.types("exit 3\r"), 3),
        ("escape", |pty| pty.types("\r~."), 125),
        ("TERM", |pty| kill_process(client(pty), Signal::TERM).unwrap(), 143),
        ("HUP", |pty| kill_process(client(pty), Signal::HUP).unwrap(), 129),
    ];
    for (way, leave, code) in ways {
        let mut pty = Pty::start(&guest.ctl(&SHELL));
        let before = pty.modes();
        pty.shows("now> ");
        assert_ne!(pty.modes(), before, "the terminal is not in raw mode");
        leave(&mut pty);
        assert_eq!((pty.code(), way), (Some(code), way));
        assert_eq!(pty.modes(), before, "{way}");
    }
}

/// Returns the pid of minionsctl: `setsid` executes it in its own process.
fn client(pty: &Pty) -> rustix::process::Pid {
    pid(&pty.child)
}

#[tokio::test(flavor = "multi_thread")]
async fn escapes_have_a_help_text_and_can_be_escaped() {
    let guest = Guest::start().await;
    let mut pty = Pty::start(&guest.ctl(&SHELL));
    pty.shows("now> ");
    pty.types("~?");
    pty.shows("~.  disconnect");
    pty.types("\recho a~.b\r");
    pty.shows("now> a~.b\r\n");
    pty.types("~~\u{15}exit\r");
    assert_eq!(pty.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detached_terminal_can_be_re_attached() {
    let guest = Guest::start().await;
    let options = ["exec", "-it", "--on-disconnect", "detach", "--id", "sh"];
    let mut pty = Pty::start(&guest.ctl(&[&options[..], &SHELL[2..]].concat()));
    pty.shows("now> ");
    pty.types("x=kept\r");
    pty.shows("now> ");
    pty.types("~.");
    pty.shows("re-attach with `minionsctl attach web-1 sh`");
    assert_eq!(pty.code(), Some(125));

    let mut pty = Pty::start(&guest.ctl(&["attach", "web-1", "sh"]));
    pty.shows("x=kept");
    pty.types("echo still $x; exit 8\r");
    pty.shows("\nstill kept\r\n");
    assert_eq!(pty.code(), Some(8));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_can_be_created_detached_and_attached_later() {
    let guest = Guest::start().await;
    guest.run(&["exec", "-dit", "--id", "sh", "web-1", "--", "sh", "-i"]).assert(0, "sh\n", "");
    let mut pty = Pty::start(&guest.ctl(&["attach", "web-1", "sh"]));
    pty.resize(30, 90);
    pty.types("echo he''re; exit 9\r");
    pty.shows("here\r\n");
    assert_eq!(pty.code(), Some(9));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_continues_after_a_killed_daemon_is_started_again() {
    let (dir, _vm) = vm();
    let mut daemon = process::start(dir.path());
    let host = daemon.host();
    let mut pty = Pty::start(&ctl(&host, &SHELL));
    let before = pty.modes();
    pty.shows("now> ");
    pty.types("x=kept\r");
    pty.shows("now> ");
    daemon.end(Signal::KILL);
    pty.shows("minionsctl: connection lost, re-attaching…");
    // Typed while there is no connection.
    pty.types("echo still $x\r");
    let mut daemon = process::start(dir.path());
    pty.shows("minionsctl: re-attached");
    pty.shows("\nstill kept\r\n");

    daemon.end(Signal::KILL);
    pty.shows("minionsctl: connection lost, re-attaching…");
    pty.types("\r~.");
    assert_eq!(pty.code(), Some(125));
    assert_eq!(pty.modes(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_input_keys_stay_local() {
    let guest = Guest::start().await;
    // Without a fork, in which dash would lose the signal.
    let program = ["exec", "-t", "web-1", "--", "sh", "-c", "echo up; exec sleep 1000"];
    let mut pty = Pty::start(&guest.ctl(&program));
    let before = pty.modes();
    pty.shows("up\r");
    assert_eq!(pty.modes(), before);
    pty.types("\u{3}");
    assert_eq!(pty.code(), Some(130));
}
