//! The resolver's configuration.

use crate::replace_file::{self, Attributes};
use std::fmt::Write;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

/// Everybody resolves names.
const MODE: u32 = 0o644;

/// Makes `path` a file with these name servers. A symbolic link at `path` is replaced, not followed:
/// it leads to a file of somebody else's, who would write over it. No servers: nothing is touched.
pub(super) async fn replace(path: &Path, servers: &[IpAddr]) -> io::Result<()> {
    if servers.is_empty() {
        return Ok(());
    }
    let text = text(servers);
    let path = path.to_owned();
    let written = tokio::task::spawn_blocking(move || {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        replace_file::replace(&path, text.as_bytes(), Attributes { mode: MODE, owner: None })
    });
    written.await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn text(servers: &[IpAddr]) -> String {
    let mut text = String::from("# By minions-agent, from the host's network configuration.\n");
    for server in servers {
        // Writing to a String can't fail.
        let _ = writeln!(text, "nameserver {server}");
    }
    text
}
