//! Programs without `--`, and environment files.

use super::guest::Guest;
use std::fs;

#[tokio::test(flavor = "multi_thread")]
async fn the_first_word_after_the_vm_is_the_program_and_its_options_are_its_own() {
    let guest = Guest::start().await;
    for (args, stdout) in [
        (&["exec", "web-1", "echo", "-n", "--host", "x"][..], "--host x"),
        (&["exec", "web-1", "-e", "A=1", "sh", "-c", "echo $A -e"], "1 -e\n"),
        (&["exec", "-e", "A=1", "web-1", "--", "sh", "-c", "echo $A"], "1\n"),
        (&["exec", "web-1", "echo", "a", "--", "b"], "a -- b\n"),
        (&["exec", "--on", "web-*", "--group", "echo", "-e"], "web-1"),
    ] {
        guest.run(args).assert(0, stdout, "");
    }
    let socket = guest.vm.path().to_str().unwrap();
    // One agent and many VMs: neither may be ignored.
    for many in [&["--all"][..], &["--on", "web-*"], &["-l", "app=web"]] {
        let args = [&["--socket", socket, "exec"][..], many, &["echo"]].concat();
        let mut both = crate::shared::command::minionsctl(&args);
        let ran = crate::shared::command::Ran::of(&mut both);
        assert!(ran.code == 125 && ran.stderr.contains("--socket"), "{many:?}: {}", ran.stderr);
    }
    let direct = crate::shared::command::minionsctl(&["--socket", socket, "exec", "echo", "-x"])
        .output()
        .unwrap();
    assert!(
        String::from_utf8_lossy(&direct.stdout).contains("\"stdout\": \"-x\\n\""),
        "{direct:?}"
    );
    guest.run(&["exec", "web-1", "sh", "-c", "exit 37"]).assert(37, "", "");
    guest.run(&["exec", "web-1"]).assert(125, "", "Usage:");
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_come_from_files_options_and_the_environment() {
    let guest = Guest::start().await;
    let (first, second) = (guest.file("first.env"), guest.file("second.env"));
    fs::write(&first, "# comment\nA=1\nB=\"x y\"\nOURS\nNONE\n").unwrap();
    fs::write(&second, "A=2\n").unwrap();
    let script = "echo \"$A|$B|$C|$OURS|${NONE-unset}\"";
    let files = [["--env-file", first.to_str().unwrap()], ["--env-file", second.to_str().unwrap()]]
        .concat();
    let run = |more: &[&str]| {
        let args = [&["exec"][..], &files, more, &["web-1", "sh", "-c", script]].concat();
        let mut command = guest.ctl(&args);
        command.env("OURS", "local").env_remove("NONE");
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    assert_eq!(run(&["-e", "C=3"]), "2|\"x y\"|3|local|unset\n");
    assert_eq!(run(&["-e", "A=9", "-e", "C"]), "9|\"x y\"||local|unset\n");
    fs::write(&second, "=x\n").unwrap();
    let args = [&["exec"][..], &files, &["web-1", "true"]].concat();
    guest.run(&args).assert(125, "", "second.env: a line must be KEY=VALUE");
}
