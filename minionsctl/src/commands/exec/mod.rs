//! `minionsctl exec VM -- CMD ARGS…`: runs a program in a guest as if it were local.
//!
//! * [`stream`]: the default: bytes both ways as they arrive.
//! * [`collected`]: the whole result as JSON (`-o json`, and the base call with `--socket`).
//! * [`detached`]: only the start (`-d`).
//! * [`many`]: one program on many VMs (`--on`, `--all`).

mod collected;
mod detached;
mod many;
mod request;
mod stream;

use super::context::Context;
use crate::cli;
use crate::client::DaemonClient;
use crate::config::ClientConfig;
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::target::Target;

pub(super) async fn run(
    context: &Context<'_>,
    config: &ClientConfig,
    args: &cli::ExecArgs,
) -> Result<ExitStatus, Failure> {
    let request = request::request(args, context.timeout)?;
    if args.many.is_meant() {
        if config.agent.is_some() {
            return Err(Failure::Usage(
                "--socket names one agent: leave --on, --all and -l out, which select VMs of minionsd",
            ));
        }
        if args.vm.is_some() || args.interactive || args.tty || args.detach || args.id.is_some() {
            return Err(Failure::Usage(
                "-l selects many VMs: leave out VM, and -i, -t, -d and --id, which are for a single program",
            ));
        }
        let client = DaemonClient::new(config)?;
        return many::run(context, &client, request, &args.many).await;
    }
    if args.many.is_said() {
        return Err(Failure::Usage(
            "--concurrency, --fail-fast and --group require --on or --all, or -l",
        ));
    }
    let target = Target::new(config, args.vm.clone())?;
    let json = context.printer.is_structured();
    match &target {
        _ if args.detach => detached::run(context, &target, request, args.interactive).await,
        _ if args.tty && json => Err(Failure::Usage("-t and -o json exclude each other")),
        Target::Agent(address) if args.is_plain() => {
            collected::from_agent(context, address, request).await
        }
        Target::Agent(_) if json => {
            Err(Failure::Usage("with --socket, -o json requires a plain exec -- CMD"))
        }
        Target::Vm(client, vm) if json => {
            collected::from_daemon(context, client, vm, request, args.interactive).await
        }
        Target::Agent(_) | Target::Vm(..) => {
            stream::run(context, &target, request, args.interactive).await
        }
    }
}
