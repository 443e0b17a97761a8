//! Feeds arbitrary answers to CONNECT and arbitrary lines of a host: no panic, and no byte is read
//! past the line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use minions_proto::handshake::{MAX_LINE_LEN, accept, initiate, parse_connect, parse_ok};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

fuzz_target!(|bytes: &[u8]| {
    let bytes = &bytes[..bytes.len().min(4096)];
    let _ = (parse_ok(bytes), parse_connect(bytes));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime without I/O needs nothing that can fail");
    runtime.block_on(async {
        for host_side in [true, false] {
            let (mut ours, mut theirs) = duplex(8192);
            theirs.write_all(bytes).await.expect("fits the pipe");
            theirs.shutdown().await.expect("a pipe can always be shut");
            let deadline = Duration::from_secs(1);
            let ok = if host_side {
                initiate(&mut ours, 1024, deadline).await.is_ok()
            } else {
                accept(&mut ours, deadline).await.is_ok()
            };
            let mut rest = Vec::new();
            ours.read_to_end(&mut rest).await.expect("a pipe reads to its end");
            let taken = bytes.len() - rest.len();
            assert!(taken <= MAX_LINE_LEN);
            assert_eq!(ok, ok && bytes[taken - 1] == b'\n');
        }
    });
});
