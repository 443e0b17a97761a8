//! Promises of the rig about a real VM.
#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tempfile::TempDir;
use testkit::rig::{Artifacts, RigError, Vm, VmConfig};

const AGENT_PORT: u32 = 1024;
const BOOT: Duration = Duration::from_secs(120);

fn boot(name: &str, dir: &TempDir) -> Vm {
    try_boot(name, dir).unwrap_or_else(|error| panic!("{error}"))
}

fn try_boot(name: &str, dir: &TempDir) -> Result<Vm, RigError> {
    let mut vm = Vm::boot(&Artifacts::locate()?, VmConfig::new(name, dir.path()))?;
    vm.wait_for_port(AGENT_PORT, BOOT)?;
    Ok(vm)
}

fn process(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

/// Returns the VM's private directory, as given on QEMU's command line.
fn private_dir(vm: &Vm) -> Option<PathBuf> {
    let command_line = fs::read(process(vm.qemu_pid()).join("cmdline")).ok()?;
    let command_line = String::from_utf8(command_line).ok()?;
    let serial = command_line.split('\0').find_map(|word| word.strip_prefix("file:"))?;
    Path::new(serial).parent().map(Path::to_owned)
}

#[test]
fn a_booted_vm_answers_and_a_dropped_vm_leaves_no_files_or_processes() {
    let dir = tempfile::tempdir().unwrap();
    let vm = boot("drop-test", &dir);
    assert_eq!(vm.socket_path(), dir.path().join("drop-test.vsock"));
    vm.connect(AGENT_PORT).unwrap();
    assert!(matches!(vm.connect(9), Err(RigError::Handshake { port: 9, .. })));

    let private = private_dir(&vm).unwrap();
    let processes = [process(vm.qemu_pid()), process(vm.vsock_backend_pid())];
    assert!(private.exists() && processes.iter().all(|process| process.exists()));
    drop(vm);
    assert!(!private.exists());
    assert!(!processes.iter().any(|process| process.exists()));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_vm_takes_over_the_socket_left_by_a_killed_vm_of_the_same_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = boot("again", &dir);
    let socket = first.socket_path().to_owned();
    let processes = [process(first.qemu_pid()), process(first.vsock_backend_pid())];
    first.kill();
    assert!(!processes.iter().any(|process| process.exists()));
    let refused = UnixStream::connect(&socket).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);

    let second = boot("again", &dir);
    drop(first);
    assert!(socket.exists(), "the first VM removed the second one's socket");
    second.connect(AGENT_PORT).unwrap();
    drop(second);
    assert!(!socket.exists());
}

#[test]
fn a_reset_vm_boots_again_in_the_same_process() {
    let dir = tempfile::tempdir().unwrap();
    let mut vm = boot("reset-test", &dir);
    let pid = vm.qemu_pid();
    assert_eq!(vm.boots(), 1);
    vm.reset().unwrap();
    vm.wait_for_port(AGENT_PORT, BOOT).unwrap();
    assert_eq!(vm.boots(), 2);
    assert_eq!(vm.qemu_pid(), pid);
}

#[test]
fn a_paused_vm_accepts_connections_but_stays_silent_until_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let vm = boot("pause-test", &dir);
    vm.pause().unwrap();
    let mut stream = UnixStream::connect(vm.socket_path()).unwrap();
    stream.write_all(b"CONNECT 1024\n").unwrap();
    let mut line = [0; 3];
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    assert_eq!(stream.read_exact(&mut line).unwrap_err().kind(), ErrorKind::WouldBlock);
    vm.resume().unwrap();
    stream.set_read_timeout(Some(BOOT)).unwrap();
    stream.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"OK ");
}

/// Sends CONNECT for the agent's port and does not wait for the answer.
fn ask(vm: &Vm) -> UnixStream {
    let mut stream = UnixStream::connect(vm.socket_path()).unwrap();
    stream.write_all(b"CONNECT 1024\n").unwrap();
    stream
}

/// Returns the number of open descriptors of the vsock backend.
fn descriptors(vm: &Vm) -> usize {
    fs::read_dir(process(vm.vsock_backend_pid()).join("fd")).unwrap().count()
}

#[test]
fn clients_that_leave_at_any_point_leak_nothing_and_do_not_affect_others() {
    let dir = tempfile::tempdir().unwrap();
    let mut vm = boot("leave-test", &dir);
    let before = descriptors(&vm);
    for round in 0..20 {
        // While the guest is frozen, none of these can be answered: all of them leave before the `OK`.
        vm.pause().unwrap();
        for _ in 0..3 {
            drop(UnixStream::connect(vm.socket_path()).unwrap());
            drop(ask(&vm));
            let mut half = UnixStream::connect(vm.socket_path()).unwrap();
            half.write_all(b"CONNECT").unwrap();
        }
        vm.resume().unwrap();
        // This client leaves with an unread answer.
        let mut stream = vm.connect(AGENT_PORT).unwrap();
        stream.write_all(b"\x00\x00\x00\x17{\"type\":\"health_check\"}").unwrap();
        stream.set_nonblocking(true).unwrap();
        vm.wait_until("the answer has arrived", BOOT, |_| {
            Ok(rustix::net::recv(&stream, &mut [0; 4], rustix::net::RecvFlags::PEEK).ok())
        })
        .unwrap();
        drop(stream);
        vm.connect(AGENT_PORT).unwrap_or_else(|error| panic!("round {round}: {error}"));
    }
    vm.wait_until("all descriptors of the clients are closed", BOOT, |vm| {
        Ok((descriptors(vm) <= before).then_some(()))
    })
    .unwrap_or_else(|error| {
        panic!("{before} descriptors before, {} now: {error}", descriptors(&vm))
    });
}

#[test]
fn a_guest_is_reached_after_a_reset_while_clients_keep_connecting() {
    let dir = tempfile::tempdir().unwrap();
    let mut vm = boot("knock-test", &dir);
    let socket = vm.socket_path().to_owned();
    for is_reset in [true, true, false, true, false] {
        let _held = vm.connect(AGENT_PORT).unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    if let Ok(mut stream) = UnixStream::connect(&socket) {
                        // Ignored: the client leaves before it knows whether it was rejected.
                        let _ = stream.write_all(b"CONNECT 1024\n");
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
            if is_reset {
                vm.reset().unwrap();
            } else {
                vm.kill_qemu().unwrap();
                vm.power_on().unwrap();
            }
            let reached = vm.wait_for_port(AGENT_PORT, BOOT);
            over.store(true, Ordering::Relaxed);
            reached.unwrap_or_else(|error| panic!("{error}"));
        });
    }
}

#[test]
fn a_crashed_qemu_is_powered_on_again_under_the_same_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut vm = boot("power-test", &dir);
    let backend = vm.vsock_backend_pid();
    for _ in 0..2 {
        vm.kill_qemu().unwrap();
        assert!(matches!(vm.connect(AGENT_PORT), Err(RigError::Handshake { .. })));
        vm.power_on().unwrap();
        vm.wait_for_port(AGENT_PORT, BOOT).unwrap_or_else(|error| panic!("{error}"));
    }
    assert_eq!(vm.vsock_backend_pid(), backend);
    drop(vm);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_killed_agent_is_started_again_by_the_guest() {
    let dir = tempfile::tempdir().unwrap();
    let mut vm = boot("agent-test", &dir);
    let ends = |vm: &Vm| vm.serial_log().matches("init: the agent ended").count();
    vm.kill_agent(AGENT_PORT).unwrap();
    vm.wait_until("the console shows the end of the agent", BOOT, |vm| {
        Ok((ends(vm) == 1).then_some(()))
    })
    .unwrap();
    vm.wait_for_port(AGENT_PORT, BOOT).unwrap();
}

#[test]
fn a_vm_outlives_the_thread_that_booted_it() {
    let dir = tempfile::tempdir().unwrap();
    let vm = std::thread::scope(|scope| scope.spawn(|| boot("thread-test", &dir)).join().unwrap());
    vm.connect(AGENT_PORT).unwrap();
}

#[test]
fn an_invalid_name_or_path_is_rejected_before_anything_starts() {
    let artifacts = Artifacts::locate().unwrap_or_else(|error| panic!("{error}"));
    let boot = |name: &str, dir: &Path| Vm::boot(&artifacts, VmConfig::new(name, dir)).unwrap_err();
    let dir = tempfile::tempdir().unwrap();
    for name in ["", "../up", "-x", "a b", &"n".repeat(64)] {
        assert!(matches!(boot(name, dir.path()), RigError::InvalidName(_)), "{name:?}");
    }
    let long = dir.path().join("d".repeat(100));
    assert!(matches!(boot("vm", &long), RigError::SocketPathTooLong(_)));
    let nowhere = dir.path().join("nowhere");
    assert!(boot("vm", &nowhere).to_string().contains("vhost-device-vsock"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
