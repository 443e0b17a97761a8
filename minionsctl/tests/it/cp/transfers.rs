//! Large files, and what is shown meanwhile.

use super::guest::CopyGuest;
use crate::shared::pty::Pty;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

/// Length of the large file, in bytes.
const LARGE: usize = 256 * 1024 * 1024;

fn digest(path: &Path) -> String {
    let mut file = File::open(path).unwrap();
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1024 * 1024]);
    loop {
        match file.read(&mut buffer).unwrap() {
            0 => return format!("{:x?}", hash.finalize()),
            len => hash.update(&buffer[..len]),
        }
    }
}

/// Writes a file whose blocks all differ.
fn plant(path: &Path) {
    let mut file = std::io::BufWriter::new(File::create(path).unwrap());
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..LARGE / 8 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        file.write_all(&state.to_le_bytes()).unwrap();
    }
    file.flush().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_is_the_same_after_both_directions() {
    let guest = CopyGuest::start().await;
    plant(&guest.path("large"));
    let expected = digest(&guest.path("large"));
    guest.run(&["large", &guest.of_vm("in")]).assert(0, "", "");
    assert_eq!(digest(&guest.path("in")), expected);
    fs::remove_file(guest.path("large")).unwrap();
    guest.run(&["-r", &guest.of_vm("in"), "out"]).assert(0, "", "");
    assert_eq!(digest(&guest.path("out")), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_progress_is_shown_only_on_a_terminal() {
    let guest = CopyGuest::start().await;
    let content = File::create(guest.path("large")).unwrap();
    content.set_len(64 * 1024 * 1024).unwrap();
    let (from, to) = (guest.text("large"), guest.of_vm("in"));
    let mut terminal = Pty::start(&guest.cp(&[&from, &to]));
    terminal.shows("of 64.00 MiB");
    assert_eq!(terminal.code(), Some(0));
    let mut quiet = Pty::start(&guest.cp(&["--quiet", &from, "web-1:/nonexistent/x"]));
    quiet.shows("error:");
    assert_eq!(quiet.code(), Some(1));
    guest.run(&[&from, &to]).assert(0, "", "");
    assert_eq!(guest.run(&[&from, &to]).stderr, "");
}
