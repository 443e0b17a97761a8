//! sshd on loopback with its own keys, and a client that is already connected (ControlMaster).

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;

use crate::programs::{background::BackgroundProgram, foreground::output_of, free_address};

/// Directory to which sshd confines its unprivileged process; usually created by its service.
const PRIVILEGE_SEPARATION: &str = "/run/sshd";

/// sshd, and the connection that all commands share.
#[derive(Debug)]
pub(crate) struct SshConnection {
    control: PathBuf,
    // Dropped before the server: the client ends with an error when the server ends first.
    _master: BackgroundProgram,
    _server: BackgroundProgram,
}

impl SshConnection {
    /// Starts both; all their files are in `dir`.
    pub(crate) fn start(dir: &Path) -> anyhow::Result<Self> {
        let own = dir.join("ssh");
        fs::DirBuilder::new().mode(0o700).create(&own).context("cannot create a directory")?;
        for name in ["host", "user"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(own.join(name));
            output_of(&mut keygen)?;
        }
        let address = free_address()?;
        let server = server(&own, address)?;
        let control = own.join("control");
        let master = master(&own, address, &control)?;
        Ok(Self { control, _master: master, _server: server })
    }

    /// Returns an `ssh` that runs `remote` in a shell of the server.
    pub(crate) fn command(&self, remote: &str) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.args(self.options()).args(["bench", remote]);
        ssh
    }

    /// Returns the options with which `ssh`, `scp` and `sftp` use this connection; the host may have any name.
    pub(crate) fn options(&self) -> [String; 4] {
        let control = format!("ControlPath={}", self.control.display());
        ["-F".to_owned(), "none".to_owned(), "-o".to_owned(), control]
    }
}

fn server(own: &Path, address: SocketAddr) -> anyhow::Result<BackgroundProgram> {
    if rustix::process::geteuid().is_root() {
        fs::create_dir_all(PRIVILEGE_SEPARATION)
            .with_context(|| format!("cannot create {PRIVILEGE_SEPARATION}"))?;
    }
    let dir = own.display();
    let configuration = format!(
        "ListenAddress {address}\nHostKey {dir}/host\nPidFile none\nUsePAM no\n\
         AuthorizedKeysFile {dir}/user.pub\nStrictModes no\nPasswordAuthentication no\n\
         PermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\n"
    );
    let file = own.join("sshd_config");
    fs::write(&file, configuration).context("cannot configure sshd")?;
    // sshd executes itself again for each connection, which requires an absolute path.
    let mut command = Command::new("/usr/sbin/sshd");
    command.args(["-D", "-e", "-f"]).arg(&file);
    let mut server = BackgroundProgram::spawn(&command, &own.join("sshd.log"))?;
    server.wait_until("sshd listens", || TcpStream::connect(address).ok())?;
    Ok(server)
}

fn master(own: &Path, address: SocketAddr, control: &Path) -> anyhow::Result<BackgroundProgram> {
    let mut command = Command::new("ssh");
    command.args(["-F", "none", "-N", "-M", "-S"]).arg(control);
    command.arg("-i").arg(own.join("user")).args(["-p", &address.port().to_string()]);
    for option in ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes"] {
        command.args(["-o", option]);
    }
    command.arg(address.ip().to_string());
    let mut master = BackgroundProgram::spawn(&command, &own.join("ssh.log"))?;
    master.wait_until("ssh is connected", || control.exists().then_some(()))?;
    Ok(master)
}
