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

use super::Context;
use crate::cli;
use crate::client::Client;
use crate::config::Config;
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::target::Target;
use std::path::Path;

pub(super) async fn run(
    context: &Context<'_>,
    config: &Config,
    socket: Option<&Path>,
    args: &cli::Exec,
) -> Result<ExitStatus, Failure> {
    let request = request::request(args, context.timeout)?;
    if args.many.is_meant() {
        let client = Client::new(config)?;
        return many::run(context, &client, request, &args.many).await;
    }
    if args.many.is_said() {
        return Err(Failure::Usage("--concurrency, --fail-fast and --group require --on or --all"));
    }
    let target = Target::new(config, socket, args.vm.clone())?;
    let json = context.printer.is_json();
    match &target {
        _ if args.detach => detached::run(context, &target, request, args.interactive).await,
        _ if args.tty && json => Err(Failure::Usage("-t and -o json exclude each other")),
        Target::Agent(socket) if args.is_plain() => {
            collected::from_agent(context, socket, request).await
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
