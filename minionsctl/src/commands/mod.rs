//! A file a verb.

mod configure_network;
mod exec;
mod get;
mod health;
mod ls;
mod network;
mod status;
mod wait;

use crate::cli::{Cli, Command};
use crate::client::{Client, Patience};
use crate::config::Config;
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::Printer;
use minions_api::VmName;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What minionsd takes at most for what an agent answers by itself.
const QUICK: Duration = Duration::from_secs(15);

/// Whom a command is for.
enum Target {
    /// One VM, through minionsd.
    Vm(Client, VmName),
    /// One agent, without it.
    Agent(PathBuf),
}

/// Everything that a verb needs beside its own arguments.
struct Context<'a> {
    printer: &'a Printer,
    timeout: Option<Duration>,
}

impl Context<'_> {
    /// For a call that the agent answers by itself.
    fn quick(&self) -> Patience {
        Patience { asked: self.timeout, at_most: QUICK }
    }

    /// For a call that minionsd answers from what it knows: nothing there takes a `timeout_ms`.
    fn registry() -> Patience {
        Patience { asked: None, at_most: QUICK }
    }

    /// The same without a daemon in between.
    fn quick_direct(&self) -> Duration {
        self.timeout.unwrap_or(QUICK)
    }
}

/// Runs the command.
pub(crate) async fn run(cli: Cli, printer: &Printer) -> Result<ExitStatus, Failure> {
    let config = Config::load(&cli)?;
    let context = Context { printer, timeout: cli.timeout };
    let socket = cli.socket.as_deref();
    let target = |vm| target(&config, socket, vm);
    match cli.command {
        Command::Ls => ls::run(&context, &daemon(&config, socket)?).await,
        Command::Get { vm } => get::run(&context, &daemon(&config, socket)?, &vm).await,
        Command::Wait { vm } => wait::run(&context, &daemon(&config, socket)?, &vm).await,
        Command::Health { vm } => health::run(&context, &target(vm)?).await,
        Command::Status { vm } => status::run(&context, &target(vm)?).await,
        Command::Network { vm } => network::run(&context, &target(vm)?).await,
        Command::ConfigureNetwork(args) => {
            let target = target(args.vm.clone())?;
            configure_network::run(&context, &target, args).await
        }
        Command::Exec(args) => {
            let target = target(args.vm.clone())?;
            exec::run(&context, &target, args.argv).await
        }
    }
}

fn target(config: &Config, socket: Option<&Path>, vm: Option<VmName>) -> Result<Target, Failure> {
    match (socket, vm) {
        (Some(socket), None) => Ok(Target::Agent(socket.to_owned())),
        (None, Some(vm)) => Ok(Target::Vm(Client::new(config)?, vm)),
        (Some(_), Some(_)) => {
            Err(Failure::Usage("--socket names the agent already; leave the VM out"))
        }
        (None, None) => {
            Err(Failure::Usage("which VM? Give its name (`minionsctl ls`), or --socket PATH"))
        }
    }
}

/// For what only minionsd knows.
fn daemon(config: &Config, socket: Option<&Path>) -> Result<Client, Failure> {
    match socket {
        None => Client::new(config),
        Some(_) => Err(Failure::Usage("an agent can't answer this; leave --socket out")),
    }
}
