//! SFTP to a guest with busybox only, which has neither sshd nor `sftp-server`.

use crate::boot::boot;
use crate::shared::command::{Ran, ctl};
use crate::shared::process;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use testkit::rig::VmConfig;
use testkit::wait::until;

#[test]
fn sftp_and_scp_copy_files_of_a_guest_without_a_server() {
    let builder = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir();
    let dir = builder.unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let _vm = boot(VmConfig::new("web-1", dir.path()));
    let daemon = process::start(dir.path());
    let client = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        command
            .args(args)
            .env("XDG_STATE_HOME", at("state"))
            .env("XDG_CONFIG_HOME", "/nonexistent");
        command.env_remove("MINIONS_HOST").stdin(Stdio::null());
        command
    };
    let options = ctl(&daemon.host(), &["ssh-config"]).env("XDG_STATE_HOME", at("state")).output();
    fs::write(at("config"), options.unwrap().stdout).unwrap();
    let config = at("config");
    let run = |script: &str| {
        let args = ["-F", &config, "web-1.minions", "--", script];
        Ran::of(&mut client("ssh", &args))
    };

    let bytes: Vec<u8> = (0..=250_u8).cycle().take(8 * 1024 * 1024).collect();
    fs::create_dir_all(at("tree/deep")).unwrap();
    fs::write(at("tree/deep/bytes"), &bytes).unwrap();
    fs::write(at("tree/run"), "#!/bin/sh\necho ran\n").unwrap();
    fs::set_permissions(at("tree/run"), Permissions::from_mode(0o755)).unwrap();
    let mut sftp = client("sftp", &["-F", &config, "-b", "-", "web-1.minions"]);
    sftp.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = sftp.spawn().unwrap();
    let batch = format!(
        "cd /tmp\nlcd {}\nput -r tree\nrename tree there\nchmod 700 there/run\nls -l there\ndf\n\
         ls -l /dev/console\n-get /dev/console x\nget -r there back\n",
        dir.path().display()
    );
    child.stdin.take().unwrap().write_all(batch.as_bytes()).unwrap();
    let ran = Ran::from(child.wait_with_output().unwrap());
    ran.assert(0, "-rwx------    1 0 ", "not a regular file").assert(0, "%Capacity", "");
    assert!(fs::read(at("back/deep/bytes")).unwrap() == bytes, "the copy differs");
    run("/tmp/there/run").assert(0, "ran\n", "");
    let scp = ["-q", "-F", &config, "web-1.minions:/tmp/there/deep/bytes", &at("copy")];
    Ran::of(&mut client("scp", &scp)).assert(0, "", "");
    assert!(fs::read(at("copy")).unwrap() == bytes, "the copy differs");
    until("no file session is left in the guest", || {
        run("ps | grep -c '[f]ile-op'").stdout == b"0\n"
    });
}
