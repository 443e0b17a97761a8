//! `power`: the reply comes first, and then the guest's end.

use crate::power::{Way, end};
use minions_proto::message::{Done, Power, PowerAction};

/// What the host is told, and what is to be done once it has been.
pub(super) fn answer(call: Power) -> (Done, impl Future<Output = ()> + Send + 'static) {
    let Power { action, force } = call;
    let way = Way::find(action, force);
    let verb = match action {
        PowerAction::Poweroff => "powered off",
        PowerAction::Reboot => "rebooted",
    };
    let message = format!("the guest is being {verb} {}", way.in_words());
    tracing::info!(?action, force, ?way, "power");
    (Done { message }, end(action, way))
}
