//! A file a verb.

mod attach;
mod configure_network;
mod doctor;
mod exec;
mod get;
mod health;
mod kill;
mod logs;
mod ls;
mod network;
mod power;
mod ps;
mod set_clock;
mod status;
mod wait;
mod wait_exec;
mod watch;

use crate::cli::{Cli, Command, TimeoutMeaning};
use crate::client::{Client, Patience};
use crate::config::Config;
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::Printer;
use crate::target::Target;
use minions_api::power::PowerAction;
use std::path::Path;
use std::time::Duration;
use tokio::time::timeout;

/// For minionsd's own answer that the limit passed.
const ANSWER_GRACE: Duration = Duration::from_millis(250);

/// What minionsd takes at most for what an agent answers by itself.
const QUICK: Duration = Duration::from_secs(15);

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

/// Runs the command within its `--timeout`.
pub(crate) async fn run_bounded(cli: Cli, printer: &Printer) -> Result<ExitStatus, Failure> {
    let limit = match (cli.timeout, cli.command.meaning_of_timeout()) {
        (Some(limit), TimeoutMeaning::Command) => limit,
        (Some(_), TimeoutMeaning::None) => {
            return Err(Failure::Usage(
                "this command follows until it is interrupted: no --timeout",
            ));
        }
        (None, _) | (Some(_), TimeoutMeaning::Program) => return run(cli, printer).await,
    };
    // minionsd gets the same limit and says more about what is missing.
    let ran = timeout(limit + ANSWER_GRACE, run(cli, printer)).await;
    ran.unwrap_or(Err(Failure::TimedOut(limit)))
}

/// Runs the command.
async fn run(cli: Cli, printer: &Printer) -> Result<ExitStatus, Failure> {
    let config = Config::load(&cli)?;
    let context = Context { printer, timeout: cli.timeout };
    let socket = cli.socket.as_deref();
    let target = |vm| Target::new(&config, socket, vm);
    match cli.command {
        Command::Ls => ls::run(&context, &daemon(&config, socket)?).await,
        Command::Get { vm } => get::run(&context, &daemon(&config, socket)?, &vm).await,
        Command::Watch { vm } => watch::run(&context, &daemon(&config, socket)?, vm.as_ref()).await,
        Command::Wait { vm, id: None, rebooted_since } => {
            wait::run(&context, &daemon(&config, socket)?, &vm, rebooted_since.as_deref()).await
        }
        Command::Wait { vm, id: Some(id), .. } => {
            wait_exec::run(&context, &daemon(&config, socket)?, &vm, &id).await
        }
        Command::Doctor { vm } => doctor::run(&context, &daemon(&config, socket)?, &vm).await,
        Command::Health { vm } => health::run(&context, &target(vm)?).await,
        Command::Status { vm } => status::run(&context, &target(vm)?).await,
        Command::Network { vm } => network::run(&context, &target(vm)?).await,
        Command::ConfigureNetwork(args) => {
            let target = target(args.vm.clone())?;
            configure_network::run(&context, &target, *args).await
        }
        Command::ConfirmNetwork(args) => {
            let (vm, id) = args.vm_and_id();
            let vm = vm.map(|name| name.parse()).transpose();
            let vm = vm.map_err(|_| Failure::Usage("a VM's name comes before the change's id"))?;
            configure_network::confirm(&context, &target(vm)?, id).await
        }
        Command::SetClock(args) => set_clock::run(&context, &target(args.vm.clone())?, &args).await,
        Command::Poweroff(args) => {
            let target = target(args.vm.clone())?;
            power::run(&context, &target, PowerAction::Poweroff, args.force, args.wait).await
        }
        Command::Reboot(args) => {
            let target = target(args.vm.clone())?;
            power::run(&context, &target, PowerAction::Reboot, args.force, args.wait).await
        }
        Command::Exec(args) => exec::run(&context, &config, socket, &args).await,
        Command::Ps { vm } => ps::run(&context, &target(vm)?).await,
        Command::Logs(args) => {
            let client = daemon(&config, socket)?;
            let vm = args.exec.vm.as_ref().ok_or(Failure::WHICH_VM)?;
            logs::run(&context, &client, vm, &args).await
        }
        Command::Attach(args) => {
            let target = target(args.exec.vm.clone())?;
            attach::run(&context, &target, &args).await
        }
        Command::Kill(args) => {
            let target = target(args.exec.vm.clone())?;
            kill::run(&context, &target, &args).await
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
