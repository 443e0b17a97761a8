//! The commands, one file each. [`context`]: the settings that all commands have.

mod attach;
mod completion;
mod configure_network;
mod context;
mod contexts;
mod cp;
mod declared;
mod doctor;
mod exec;
mod forward;
mod fs;
mod get;
mod health;
mod kill;
mod log_tail;
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
mod suggestion;
mod thaw;
mod version;
mod wait;
mod wait_exec;
mod wait_goal;
mod watch;
mod whoami;

pub(crate) use suggestion::CommandFailure;

use crate::cli::{Cli, Command, ExecIdArgs, OutputFormat, TimeoutMeaning, WaitArgs, WaitSubject};
use crate::client::DaemonClient;
use crate::config::ClientConfig;
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::Printer;
use crate::target::Target;
use context::Context;
use minions_api::VmName;
use minions_api::power::PowerAction;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Time on top of `--timeout` in which minionsd itself can report that the limit has passed.
const ANSWER_GRACE: Duration = Duration::from_millis(250);

/// Runs the command within its `--timeout`.
pub(crate) async fn run_bounded(cli: Cli, printer: &Printer) -> Result<ExitStatus, CommandFailure> {
    if cli.output == OutputFormat::Name && !cli.command.lists_names() {
        return Err(Failure::Usage("-o name applies to ls, ps and context ls").into());
    }
    if let Command::Context { command } = &cli.command {
        // Not with the configuration, which may need this command to become valid.
        let context = Context { printer, timeout: cli.timeout };
        return Ok(contexts::run(&context, command, contexts::NewContext::of(&cli))?);
    }
    if let Command::Completion(args) = &cli.command {
        // Not with the configuration either: an invalid one must not print an error at the start of each shell.
        return Ok(completion::run(args.shell)?);
    }
    let config = ClientConfig::load(&cli)?;
    let program = cli.command.program();
    match within_limit(cli, &config, printer).await {
        Ok(status) => Ok(status),
        Err(failure) => Err(suggestion::with_suggestion(&config, failure, program.as_ref()).await),
    }
}

async fn within_limit(
    cli: Cli,
    config: &ClientConfig,
    printer: &Printer,
) -> Result<ExitStatus, Failure> {
    let limit = match (cli.timeout, cli.command.meaning_of_timeout()) {
        (Some(limit), TimeoutMeaning::Command) => limit,
        (Some(_), TimeoutMeaning::None) => {
            return Err(Failure::Usage("--timeout does not apply to this command: leave it out"));
        }
        (None, _) | (Some(_), TimeoutMeaning::Program) => {
            return run(cli, config, printer).await;
        }
    };
    // minionsd gets the same limit, and its error is more precise.
    let ran = timeout(limit + ANSWER_GRACE, run(cli, config, printer)).await;
    ran.unwrap_or(Err(Failure::TimedOut(limit)))
}

/// Runs the command.
async fn run(cli: Cli, config: &ClientConfig, printer: &Printer) -> Result<ExitStatus, Failure> {
    let context = Context { printer, timeout: cli.timeout };
    let target = |vm| Target::new(config, vm);
    match cli.command {
        Command::Ls(args) => ls::run(&context, &daemon(config)?, &args).await,
        Command::Get { vm } => get::run(&context, &daemon(config)?, &vm).await,
        Command::Watch { vm } => watch::run(&context, &daemon(config)?, vm.as_ref()).await,
        Command::Apply(args) => declared::apply::run(&context, &daemon(config)?, &args).await,
        Command::Diff(args) => declared::apply::diff(&context, &daemon(config)?, &args).await,
        Command::Config(args) => declared::config::run(&context, &daemon(config)?, &args).await,
        Command::Declarations => declared::list::run(&context, &daemon(config)?).await,
        Command::Pool { command } => {
            declared::pools::run(&context, &daemon(config)?, command).await
        }
        Command::Wait(args) => wait_for(&context, config, args).await,
        Command::Version { client } => version::run(&context, config, client).await,
        Command::Whoami => whoami::run(&context, &daemon(config)?, config).await,
        Command::Completion(args) => completion::run(args.shell),
        Command::Context { ref command } => {
            contexts::run(&context, command, contexts::NewContext::of(&cli))
        }
        Command::Doctor { vm } => doctor::run(&context, &daemon(config)?, &vm).await,
        Command::Health { vm } => health::run(&context, &target(vm)?).await,
        Command::Status { vm } => status::run(&context, &target(vm)?).await,
        Command::Network { vm } => network::run(&context, &target(vm)?).await,
        Command::ConfigureNetwork(args) => {
            let target = target(args.vm.clone())?;
            configure_network::run(&context, &target, *args).await
        }
        Command::ConfirmNetwork(args) => {
            let (vm, id) = args.vm_and_id();
            if vm.is_none() && config.agent.is_none() {
                return Err(Failure::UsageText(format!(
                    "VM and ID are needed, and only {id:?} is given: `minionsctl configure-network --confirm-within` \
                     printed the id"
                )));
            }
            let vm = vm.map(|name| name.parse()).transpose();
            let vm =
                vm.map_err(|_| Failure::Usage("invalid VM name; usage: confirm-network VM ID"))?;
            configure_network::confirm(&context, &target(vm)?, id).await
        }
        Command::SetClock(args) => set_clock::run(&context, &target(args.vm.clone())?, &args).await,
        Command::Restored { vm } => restored::run(&context, &daemon(config)?, &vm).await,
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
        Command::Forward(args) => forward::run(&context, Arc::new(daemon(config)?), &args).await,
        Command::Fs(args) => fs::run(&context, &daemon(config)?, &args).await,
        Command::Cp(args) => cp::run(&context, Arc::new(daemon(config)?), &args).await,
        Command::Exec(args) => exec::run(&context, config, &args).await,
        Command::Ssh(ref args) => ssh::client(config, &ssh::proxy_command(&cli)?, args),
        Command::SshConfig(ref args) => {
            ssh::configuration(config, &ssh::proxy_command(&cli)?, args)
        }
        Command::SshProxy(args) => ssh::proxy(target(args.vm)?).await,
        Command::Ps(args) => ps::run(&context, config, &args).await,
        Command::Shell(args) => exec::run(&context, config, &args.into()).await,
        Command::Logs(args) => {
            let client = daemon(config)?;
            let vm = vm_of_program(config, &args.exec)?;
            let vm = vm.as_ref().ok_or(Failure::WHICH_VM)?;
            logs::run(&context, &client, vm, &args).await
        }
        Command::Attach(args) => {
            let target = target(vm_of_program(config, &args.exec)?)?;
            attach::run(&context, &target, &args).await
        }
        Command::Kill(args) => {
            let target = target(vm_of_program(config, &args.exec)?)?;
            kill::run(&context, &target, &args).await
        }
    }
}

/// Returns the VM of a program. Without `--socket`, a single word is more likely the VM than the id.
fn vm_of_program(config: &ClientConfig, exec: &ExecIdArgs) -> Result<Option<VmName>, Failure> {
    if exec.vm.is_none() && config.agent.is_none() {
        let given = &exec.id;
        return Err(Failure::UsageText(format!(
            "VM and ID are needed, and only {given} is given: `minionsctl ps {given}` lists the ids of the VM {given}"
        )));
    }
    Ok(exec.vm.clone())
}

/// Runs `wait`.
async fn wait_for(
    context: &Context<'_>,
    config: &ClientConfig,
    args: WaitArgs,
) -> Result<ExitStatus, Failure> {
    let client = daemon(config)?;
    match args.subject().map_err(Failure::UsageText)? {
        WaitSubject::Vm(vm) => {
            wait::run(context, &client, &vm, args.rebooted_since.as_deref()).await
        }
        WaitSubject::Program(vm, id) => wait_exec::run(context, &client, &vm, &id).await,
        WaitSubject::Vms(vms, goal) => wait_goal::run(context, &client, vms, goal).await,
        WaitSubject::Selected(goal) => {
            wait_goal::run_selected(context, &client, &args.labels, goal).await
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
