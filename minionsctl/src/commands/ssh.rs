//! `minionsctl ssh`, `ssh-proxy` and `ssh-config`: the system's SSH client for guests without sshd and network.

use crate::cli::{Cli, HOST_SUFFIX, SshArgs, SshConfigArgs};
use crate::config::ClientConfig;
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::write_to;
use crate::ssh::{self, ClientOptions, HostIdentity};
use crate::ssh_error::SshError;
use crate::target::Target;
use minions_proto::channel::OutputStream;
use std::env;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, absolute};
use std::process::Command;

/// Host name that is passed to ssh with `--socket`, which does not name a VM.
const UNNAMED_HOST: &str = "vm";

/// Returns the command `ssh-proxy` with the global options of this command line, as words. Paths are made absolute,
/// because ssh may run in another directory.
pub(super) fn proxy_command(cli: &Cli) -> Result<Vec<String>, Failure> {
    let text = |path: &Path| {
        let path = absolute(path).unwrap_or_else(|_| path.to_owned()).into_os_string();
        path.into_string().map_err(|_| Failure::Usage("ssh requires paths that are UTF-8"))
    };
    let mut words = vec![text(&env::current_exe().map_err(Failure::Runtime)?)?];
    if let Some(host) = &cli.host {
        words.extend(["--host".to_owned(), super::contexts::absolute_host(host.parse()?)?]);
    }
    if let Some(context) = &cli.context {
        words.extend(["--context".to_owned(), context.clone()]);
    }
    for (option, path) in [
        ("--token-file", &cli.token_file),
        ("--ca-file", &cli.ca_file),
        ("--cert-file", &cli.cert_file),
        ("--socket", &cli.socket),
    ] {
        if let Some(path) = path {
            words.extend([option.to_owned(), text(path)?]);
        }
    }
    words.extend(cli.port.iter().flat_map(|port| ["--port".to_owned(), port.to_string()]));
    words.push("ssh-proxy".into());
    Ok(words)
}

/// Replaces this process with the system's ssh.
pub(super) fn client(
    config: &ClientConfig,
    proxy: &[String],
    args: &SshArgs,
) -> Result<ExitStatus, Failure> {
    let vm = args.destination.as_ref().map(|destination| destination.vm.clone());
    // Checks the address and the credentials here, because ssh would hide the reason of a failure.
    Target::new(config, vm.clone())?;
    let host = vm.as_ref().map_or(UNNAMED_HOST, |vm| vm.as_str());
    let user = args.destination.as_ref().and_then(|destination| destination.user.as_deref());
    let options = ClientOptions::new(&HostIdentity::load_or_create()?, proxy, vm.is_some())?;
    let mut ssh = Command::new("ssh");
    ssh.args(options.arguments());
    ssh.args(args.option.iter().flat_map(|option| ["-o", option]));
    if args.tty {
        ssh.arg("-t");
    }
    ssh.args(["-l", user.unwrap_or("root")]).arg(format!("{host}{HOST_SUFFIX}"));
    // ssh would parse a command that starts with a dash as an option.
    let error = ssh.arg("--").args(&args.command).exec();
    Err(match error.kind() {
        io::ErrorKind::NotFound => SshError::NoClient.into(),
        _ => SshError::Client(error).into(),
    })
}

/// Serves SSH on standard input and output.
pub(super) async fn proxy(target: Target) -> Result<ExitStatus, Failure> {
    ssh::serve(target, HostIdentity::load_or_create()?).await?;
    Ok(ExitStatus::Success)
}

/// Prints or installs the options of SSH clients.
pub(super) fn configuration(
    config: &ClientConfig,
    proxy: &[String],
    args: &SshConfigArgs,
) -> Result<ExitStatus, Failure> {
    let block =
        ClientOptions::new(&HostIdentity::load_or_create()?, proxy, config.agent.is_none())?
            .block();
    let text = if args.install {
        let path = ssh::install(&block)?;
        format!("installed {}; try `ssh VM{HOST_SUFFIX}`\n", path.display())
    } else {
        block
    };
    write_to(OutputStream::Stdout, text.as_bytes()).map_err(Failure::Output)?;
    Ok(ExitStatus::Success)
}
