//! The subsystem `sftp`, with packets that OpenSSH's own clients do not send.

use super::sftp::{SftpGuest, packet};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, chown};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

const LSTAT: u8 = 7;
const SETSTAT: u8 = 9;
const REALPATH: u8 = 16;
const STATUS: u8 = 101;
const NAME: u8 = 104;

/// Client that sends and receives single packets.
struct PacketClient {
    child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
}

impl PacketClient {
    fn start(guest: &SftpGuest) -> Self {
        let mut ssh = guest.ssh.limited_ssh(&["-s", "files.minions", "sftp"]);
        let mut child = ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut client = Self { child, stdin, stdout };
        client.stdin.write_all(&packet(&[&[1], &3_u32.to_be_bytes()])).unwrap();
        assert_eq!(client.reply()[..5], [2, 0, 0, 0, 3], "the version");
        client
    }

    /// Returns the next reply, without its length.
    fn reply(&mut self) -> Vec<u8> {
        let mut length = [0; 4];
        self.stdout.read_exact(&mut length).unwrap();
        let mut reply = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
        self.stdout.read_exact(&mut reply).unwrap();
        reply
    }

    /// Sends a request about a path, and returns the type of the reply and its first number after the id.
    fn request(&mut self, kind: u8, path: &[u8], rest: &[u8]) -> (u8, u32) {
        let id = 77_u32.to_be_bytes();
        let length = u32::try_from(path.len()).unwrap().to_be_bytes();
        self.stdin.write_all(&packet(&[&[kind], &id, &length, path, rest])).unwrap();
        let reply = self.reply();
        assert_eq!(reply[1..5], id);
        (reply[0], u32::from_be_bytes(reply[5..9].try_into().unwrap()))
    }
}

impl Drop for PacketClient {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_is_too_long_is_a_failure_and_the_session_continues() {
    let guest = SftpGuest::start().await;
    let mut client = PacketClient::start(&guest);
    for length in [4_096, 70_000] {
        assert_eq!(client.request(LSTAT, &vec![b'a'; length], b""), (STATUS, 5), "bad message");
        assert_eq!(client.request(REALPATH, b"/", b""), (NAME, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_of_minus_one_is_kept() {
    let guest = SftpGuest::start().await;
    let file = guest.file("file");
    fs::write(&file, "").unwrap();
    chown(&file, Some(3), Some(4)).unwrap();
    let mut client = PacketClient::start(&guest);
    let kept = u32::MAX;
    for (uid, gid, expected) in [(7, kept, (7, 4)), (kept, 8, (7, 8)), (kept, kept, (7, 8))] {
        let change: Vec<u8> = [2, uid, gid].into_iter().flat_map(u32::to_be_bytes).collect();
        let path = file.as_os_str().as_encoded_bytes();
        assert_eq!(client.request(SETSTAT, path, &change), (STATUS, 0));
        let known = fs::metadata(&file).unwrap();
        assert_eq!((known.uid(), known.gid()), expected);
    }
}
