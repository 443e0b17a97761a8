//! `exec` over a stream: bytes both ways as they arrive.

use crate::commands::context::Context;
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::link::FirstMessage;
use crate::local::terminal::input_is_terminal;
use crate::session::{Session, SessionPlan, come_back};
use crate::target::Target;
use minions_api::exec::{ExecRequest, OnDisconnect};
use uuid::Uuid;

pub(super) async fn run(
    context: &Context<'_>,
    target: &Target,
    mut request: ExecRequest,
    interactive: bool,
) -> Result<ExitStatus, Failure> {
    let tty = request.tty.is_some();
    let raw = tty && interactive;
    if raw && !input_is_terminal() {
        return Err(Failure::Usage(
            "-i and -t together require a terminal as standard input: leave -t out, or -i if the program \
             needs a terminal but no input",
        ));
    }
    request.interactive = Some(interactive);
    // With an id, a start whose answer is lost can be repeated, and a lost stream can be re-attached.
    let minted = request.id.is_none();
    request.id.get_or_insert_with(|| Uuid::new_v4().to_string());
    let plan = SessionPlan {
        outlives_us: request.on_disconnect == Some(OnDisconnect::Detach),
        opening: FirstMessage::Start(Box::new(request)),
        minted,
        interactive,
        tty,
        raw,
        come_back: come_back(target),
        timeout: context.timeout,
    };
    Session::new(target, context.printer, plan)?.run().await
}
