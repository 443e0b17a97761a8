//! Arbitrary bytes of any length, both ways.

use super::guest::Guest;
use crate::shared::command::Ran;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

const LEN: usize = 50 * 1024 * 1024;

/// Writes a file of pseudo-random bytes, the same in every run, and returns them.
fn noise(path: &Path) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    let bytes: Vec<u8> = words.take(LEN / 8).flatten().collect();
    fs::write(path, &bytes).unwrap();
    bytes
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_is_unchanged_in_both_directions() {
    let guest = Guest::start().await;
    let path = guest.file("noise");
    let expected = hash(&noise(&path));
    let with_input = |args: &[&str]| {
        let mut command = guest.ctl(args);
        command.stdin(File::open(&path).unwrap());
        Ran::of(&mut command)
    };

    let there = with_input(&["exec", "-i", "web-1", "--", "sha256sum"]);
    there.assert(0, &expected, "");
    let back = with_input(&["exec", "-i", "web-1", "--", "cat"]);
    assert_eq!((back.code, hash(&back.stdout)), (0, expected.clone()));
    let out = guest.run(&["exec", "web-1", "--", "cat", path.to_str().unwrap()]);
    assert_eq!((out.code, hash(&out.stdout)), (0, expected.clone()));
    let both = format!("cat {0} >&2 & cat {0}; wait", path.display());
    let out = guest.ctl(&["exec", "web-1", "--", "sh", "-c", &both]).output().unwrap();
    assert_eq!((hash(&out.stdout), hash(&out.stderr)), (expected.clone(), expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_tree_is_copied_through_a_pipe() {
    let guest = Guest::start().await;
    let (from, to) = (guest.file("from"), guest.file("to"));
    fs::create_dir_all(from.join("deep/er")).unwrap();
    fs::create_dir(&to).unwrap();
    noise(&from.join("deep/er/noise"));
    fs::write(from.join("empty"), "").unwrap();
    std::os::unix::fs::symlink("deep/er", from.join("link")).unwrap();

    let mut tar = Command::new("tar");
    let mut tar =
        tar.arg("-C").arg(&from).args(["-c", "."]).stdout(Stdio::piped()).spawn().unwrap();
    let mut untar =
        guest.ctl(&["exec", "-i", "web-1", "--", "tar", "-x", "-C", to.to_str().unwrap()]);
    Ran::of(untar.stdin(tar.stdout.take().unwrap())).assert(0, "", "");
    assert!(tar.wait().unwrap().success());
    assert!(Command::new("diff").arg("-r").args([from, to]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn output_arrives_before_the_input_ends() {
    let guest = Guest::start().await;
    let mut child = guest
        .ctl(&["exec", "-i", "web-1", "--", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    for word in ["one", "two", "six"] {
        stdin.write_all(word.as_bytes()).unwrap();
        let mut answer = [0; 3];
        stdout.read_exact(&mut answer).unwrap();
        assert_eq!(answer, word.as_bytes());
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_i_standard_input_is_not_read() {
    let guest = Guest::start().await;
    let mut command = guest.ctl(&["exec", "web-1", "--", "cat"]);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_standard_output_ends_the_client() {
    let guest = Guest::start().await;
    let mut child =
        guest.ctl(&["exec", "web-1", "--", "yes"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut some = [0; 4];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    assert_eq!((&some, child.wait().unwrap().code()), (b"y\ny\n", Some(141)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_as_json_accepts_input_up_to_its_limit() {
    let guest = Guest::start().await;
    let path = guest.file("input");
    fs::write(&path, b"a\xffb").unwrap();
    let mut command = guest.ctl(&["-o", "json", "exec", "-i", "web-1", "--", "cat"]);
    let ran = Ran::of(command.stdin(File::open(&path).unwrap()));
    assert_eq!((ran.code, &ran.json()["stdout_base64"]), (0, &"Yf9i".into()));
    fs::write(&path, vec![0; 6 * 1024 * 1024]).unwrap();
    let mut command = guest.ctl(&["-o", "json", "exec", "-i", "web-1", "--", "cat"]);
    Ran::of(command.stdin(File::open(&path).unwrap())).assert(125, "", "without -o json");
}
