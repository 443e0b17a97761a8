//! Tests of dials and of the descriptions of failed ones.

use super::*;
use std::fs;
use std::process::Command;
use tokio::io::AsyncReadExt;
use tokio::net::UnixListener;

#[test]
fn a_failed_connect_names_the_cause_and_only_a_long_path_is_to_be_shortened() {
    use rustix::io::Errno;
    use std::io::{Error, ErrorKind};
    let described = |source| {
        let error = ConnectError::Dial { port: AgentPort::DEFAULT, source };
        (error.failure(), error.message(Path::new("/run/minions/web-1.vsock")))
    };
    let (failure, message) = described(DialError::Connect(ErrorKind::InvalidInput.into()));
    assert_eq!(failure, Failure::ConnectFailed);
    assert!(message.contains("shorten `socket_dir`"), "{message}");
    let (failure, message) = described(DialError::Connect(Error::from(Errno::ACCESS)));
    assert_eq!(failure, Failure::ConnectFailed);
    assert!(message.starts_with("cannot connect to the socket: Permission denied"), "{message}");
    for errno in [Errno::MFILE, Errno::NFILE] {
        let (failure, _) = described(DialError::Connect(Error::from(errno)));
        assert_eq!(failure, Failure::DaemonExhausted, "{errno:?}");
    }
}

#[tokio::test]
async fn the_command_that_removes_a_socket_keeps_a_link_and_quotes_the_path() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    let [plain, odd, link] =
        ["web-1.vsock", "it's odd.vsock", "link.vsock"].map(|name| dir.join(name));
    let _listeners = [&plain, &odd].map(|path| UnixListener::bind(path).unwrap());
    std::os::unix::fs::symlink(&plain, &link).unwrap();
    let removed = |path: &Path| {
        let command = remove_command(path);
        assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
        command
    };
    assert_eq!(removed(&link), format!("rm -f {}", plain.display()));
    assert!(!plain.exists() && fs::symlink_metadata(&link).is_ok());
    removed(&odd);
    assert!(!odd.exists());
}

#[tokio::test]
async fn a_path_that_now_leads_to_another_vm_is_not_dialled() {
    let dir = tempfile::tempdir().unwrap();
    let [path, successor] = ["web-1.vsock", "new"].map(|name| dir.path().join(name));
    let _meant = UnixListener::bind(&path).unwrap();
    let socket = VmSocket { id: SocketId::at(&path).unwrap(), path: path.clone() };
    let other = UnixListener::bind(&successor).unwrap();
    fs::rename(successor, path).unwrap();
    let (descriptors, meters) = (Descriptors::of_process(), Arc::new(Meters::default()));
    let dials = Dials::new(1, TaskTracker::new(), descriptors, MemoryBudget::default(), meters);
    let dialled = Connector::new(socket, dials).connect().await;
    assert!(matches!(dialled, Err(ConnectError::Replaced)), "{dialled:?}");
    let mut said = Vec::new();
    other.accept().await.unwrap().0.read_to_end(&mut said).await.unwrap();
    assert_eq!(said, b"", "CONNECT was sent to the other VM");
}
