//! SSH host keys: copies of a guest have the same ones until they are replaced.

use super::steps::{StepResult, blocking};
use crate::exec::Executor;
use crate::hooks;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Types of keys, as in `ssh_host_<type>_key`.
const TYPES: [&str; 4] = ["rsa", "ecdsa", "ed25519", "dsa"];

/// Time limit for one key. An RSA key takes a second, in an emulated guest ten.
const LIMIT: Duration = Duration::from_secs(60);

/// Type of a new key, and the path at which it is generated.
type NewKey = (&'static str, PathBuf);

/// Files with the pid of the listening sshd.
const PID_FILES: [&str; 2] = ["/run/sshd.pid", "/run/ssh/sshd.pid"];

/// Replaces the host keys below `etc` by new ones of the same types, and makes sshd read them. If a key cannot be
/// generated, all remain as they are.
pub(super) async fn renew(etc: PathBuf, executor: &Executor) -> StepResult {
    let dir = etc.join("ssh");
    let found = dir.clone();
    let present = blocking(move || {
        let is_present = |kind: &&str| key(&found, kind).exists();
        Ok(TYPES.into_iter().filter(is_present).collect::<Vec<_>>())
    });
    let present = present.await?;
    if present.is_empty() {
        return Ok("the guest has no SSH host keys".to_owned());
    }
    let new: Vec<_> =
        present.iter().map(|one| (*one, dir.join(format!(".minions_{one}_key")))).collect();
    let generated = generate_all(&new, executor).await;
    blocking(move || {
        let replaced = generated.and_then(|()| replace(&dir, &new));
        // They exist only after a failure.
        remove(&new);
        replaced?;
        let reread = if hang_up() { "; sshd reads them again" } else { "" };
        Ok(format!("renewed: {}{reread}", present.join(", ")))
    })
    .await
}

fn key(dir: &Path, kind: &str) -> PathBuf {
    dir.join(format!("ssh_host_{kind}_key"))
}

fn public(key: &Path) -> PathBuf {
    key.with_added_extension("pub")
}

async fn generate_all(new: &[NewKey], executor: &Executor) -> Result<(), String> {
    let left = new.to_vec();
    // ssh-keygen asks before it overwrites a file that an interrupted run has left.
    blocking(move || {
        remove(&left);
        Ok(())
    })
    .await?;
    for (kind, path) in new {
        generate(kind, path, executor)
            .await
            .map_err(|error| format!("ssh-keygen -t {kind}: {error}"))?;
    }
    Ok(())
}

async fn generate(kind: &str, path: &Path, executor: &Executor) -> Result<(), String> {
    let path = path.to_str().ok_or("the path of the keys is not UTF-8")?;
    let args = ["-q", "-N", "", "-t", kind, "-f", path].map(str::to_owned);
    let ended = hooks::run_program(executor, "ssh-keygen", args.into(), LIMIT).await;
    if ended.ok { Ok(()) } else { Err(ended.detail) }
}

fn remove(keys: &[NewKey]) {
    for (_, path) in keys {
        // Fails if the file does not exist.
        let _ = fs::remove_file(path);
        let _ = fs::remove_file(public(path));
    }
}

fn replace(dir: &Path, new: &[NewKey]) -> Result<(), String> {
    let rename = |from: &Path, to: &Path| -> io::Result<()> { fs::rename(from, to) };
    for (kind, path) in new {
        let old = key(dir, kind);
        rename(path, &old)
            .and_then(|()| rename(&public(path), &public(&old)))
            .map_err(|error| format!("cannot replace {}: {error}", old.display()))?;
    }
    Ok(())
}

/// Sends SIGHUP to the listening sshd, if one runs.
fn hang_up() -> bool {
    PID_FILES.iter().any(|path| {
        let pid = fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<i32>().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else { return false };
        // The file can be from a process that has ended, and the pid be another one's.
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.trim() == "sshd" && kill_process(pid, Signal::HUP).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::ProgramGroups;
    use crate::protection::ProgramDefaults;
    use std::process::Command;

    #[tokio::test]
    async fn keys_are_replaced_by_new_ones_of_the_same_types() {
        let group = ProgramGroups::Below(format!("ssh-keys-{}", std::process::id()));
        let executor = Executor::new(LIMIT, None, ProgramDefaults::default(), group);
        let etc = tempfile::tempdir().unwrap();
        let renew = async || renew(etc.path().to_owned(), &executor).await;
        assert_eq!(renew().await.unwrap(), "the guest has no SSH host keys");
        let dir = etc.path().join("ssh");
        fs::create_dir(&dir).unwrap();
        let key = key(&dir, "ed25519");
        fs::write(&key, "old").unwrap();
        fs::write(public(&key), "old").unwrap();
        if Command::new("ssh-keygen").arg("-?").output().is_err() {
            // Without the program, the keys stay.
            assert!(renew().await.unwrap_err().contains("ssh-keygen"));
            assert_eq!(fs::read_to_string(&key).unwrap(), "old");
            return;
        }
        // An interrupted run has left it.
        fs::write(dir.join(".minions_ed25519_key"), "partial").unwrap();
        assert!(renew().await.unwrap().starts_with("renewed: ed25519"));
        assert!(fs::read_to_string(&key).unwrap().contains("OPENSSH PRIVATE KEY"));
        assert!(fs::read_to_string(public(&key)).unwrap().starts_with("ssh-ed25519 "));
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2, "no other file is left");
    }
}
