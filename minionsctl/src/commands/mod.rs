//! The commands, one file each. [`context`]: the settings that all commands have.

mod attach;
mod configure_network;
mod context;
mod cp;
mod declared;
mod doctor;
mod exec;
mod forward;
mod fs;
mod get;
mod health;
mod kill;
mod logs;
mod ls;
mod network;
mod power;
mod ps;
mod quiesce;
mod restored;
mod set_clock;
mod ssh;
mod status;
mod thaw;
mod wait;
mod wait_exec;
mod watch;

use crate::cli::{Cli, Command, TimeoutMeaning};
use crate::client::DaemonClient;
use crate::config::ClientConfig;
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::Printer;
use crate::target::Target;
use context::Context;
use minions_api::power::PowerAction;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Time on top of `--timeout` in which minionsd itself can report that the limit has passed.
const ANSWER_GRACE: Duration = Duration::from_millis(250);

/// Runs the command within its `--timeout`.
pub(crate) async fn run_bounded(cli: Cli, printer: &Printer) -> Result<ExitStatus, Failure> {
    let limit = match (cli.timeout, cli.command.meaning_of_timeout()) {
        (Some(limit), TimeoutMeaning::Command) => limit,
        (Some(_), TimeoutMeaning::None) => {
            return Err(Failure::Usage("--timeout does not apply to this command: leave it out"));
        }
        (None, _) | (Some(_), TimeoutMeaning::Program) => return run(cli, printer).await,
    };
    // minionsd gets the same limit, and its error is more precise.
    let ran = timeout(limit + ANSWER_GRACE, run(cli, printer)).await;
    ran.unwrap_or(Err(Failure::TimedOut(limit)))
}

/// Runs the command.
async fn run(cli: Cli, printer: &Printer) -> Result<ExitStatus, Failure> {
    let config = ClientConfig::load(&cli)?;
    let context = Context { printer, timeout: cli.timeout };
    let target = |vm| Target::new(&config, vm);
    match cli.command {
        Command::Ls(args) => ls::run(&context, &daemon(&config)?, &args).await,
        Command::Get { vm } => get::run(&context, &daemon(&config)?, &vm).await,
        Command::Watch { vm } => watch::run(&context, &daemon(&config)?, vm.as_ref()).await,
        Command::Apply(args) => declared::apply::run(&context, &daemon(&config)?, &args).await,
        Command::Diff(args) => declared::apply::diff(&context, &daemon(&config)?, &args).await,
        Command::Config(args) => declared::config::run(&context, &daemon(&config)?, &args).await,
        Command::Declarations => declared::list::run(&context, &daemon(&config)?).await,
        Command::Pool { command } => {
            declared::pools::run(&context, &daemon(&config)?, command).await
        }
        Command::Wait { vm, id: None, goal: Some(goal), .. } => {
            wait::run_for(&context, &daemon(&config)?, &vm, goal).await
        }
        Command::Wait { vm, id: None, rebooted_since, goal: None } => {
            wait::run(&context, &daemon(&config)?, &vm, rebooted_since.as_deref()).await
        }
        Command::Wait { vm, id: Some(id), .. } => {
            wait_exec::run(&context, &daemon(&config)?, &vm, &id).await
        }
        Command::Doctor { vm } => doctor::run(&context, &daemon(&config)?, &vm).await,
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
            let vm =
                vm.map_err(|_| Failure::Usage("invalid VM name; usage: confirm-network VM ID"))?;
            configure_network::confirm(&context, &target(vm)?, id).await
        }
        Command::SetClock(args) => set_clock::run(&context, &target(args.vm.clone())?, &args).await,
        Command::Restored { vm } => restored::run(&context, &daemon(&config)?, &vm).await,
        Command::Poweroff(args) => {
            let target = target(args.vm.clone())?;
            power::run(&context, &target, PowerAction::Poweroff, args.force, args.wait).await
        }
        Command::Reboot(args) => {
            let target = target(args.vm.clone())?;
            power::run(&context, &target, PowerAction::Reboot, args.force, args.wait).await
        }
        Command::Quiesce(args) => {
            let target = target(args.vm.clone())?;
            quiesce::run(&context, &target, args).await
        }
        Command::Thaw { vm, id } => thaw::run(&context, &target(vm)?, id).await,
        Command::Forward(args) => forward::run(&context, Arc::new(daemon(&config)?), &args).await,
        Command::Fs(args) => fs::run(&context, &daemon(&config)?, &args).await,
        Command::Cp(args) => cp::run(&context, Arc::new(daemon(&config)?), &args).await,
        Command::Exec(args) => exec::run(&context, &config, &args).await,
        Command::Ssh(ref args) => ssh::client(&config, &ssh::proxy_command(&cli)?, args),
        Command::SshConfig(ref args) => {
            ssh::configuration(&config, &ssh::proxy_command(&cli)?, args)
        }
        Command::SshProxy(args) => ssh::proxy(target(args.vm)?).await,
        Command::Ps { vm } => ps::run(&context, &target(vm)?).await,
        Command::Logs(args) => {
            let client = daemon(&config)?;
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

/// Returns the client of minionsd, for commands that an agent cannot answer.
fn daemon(config: &ClientConfig) -> Result<DaemonClient, Failure> {
    match config.agent {
        None => DaemonClient::new(config),
        Some(_) => Err(Failure::Usage("only minionsd can answer this: leave --socket out")),
    }
}
