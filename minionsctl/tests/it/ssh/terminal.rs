//! Terminals over SSH.

use super::guest::SshGuest;
use crate::shared::pty::Pty;

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_has_the_terminal_of_the_client() {
    let ssh = SshGuest::start().await;
    let mut pty = Pty::start(&ssh.ssh(&["-t", "web-1.minions", "--", "PS1='now> ' exec sh -i"]));
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
    let ssh = SshGuest::start().await;
    let script = "trap 'stty size' WINCH; echo go; while :; do sleep 0.05; done";
    let mut pty = Pty::start(&ssh.ssh(&["-t", "web-1.minions", "--", script]));
    pty.shows("go\r\n");
    pty.resize(40, 132);
    pty.shows("40 132\r\n");
    pty.types("\r~.");
    assert_eq!(pty.code(), Some(255));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_command_the_login_shell_runs() {
    let ssh = SshGuest::start().await;
    let mut pty = Pty::start(&ssh.ssh(&["web-1.minions"]));
    pty.types("echo in''side $0; exit 9\r");
    pty.shows("inside ");
    assert_eq!(pty.code(), Some(9));
}
