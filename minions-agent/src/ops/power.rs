//! `power`: replies first, then ends the guest.

use crate::power::{ShutdownMethod, end};
use minions_proto::message::{Done, Power, PowerAction};

/// Returns the reply, and the future that ends the guest once the reply was sent.
pub(super) fn answer(call: Power) -> (Done, impl Future<Output = ()> + Send + 'static) {
    let Power { action, force } = call;
    let way = ShutdownMethod::find(action, force);
    let verb = match action {
        PowerAction::Poweroff => "powered off",
        PowerAction::Reboot => "rebooted",
    };
    let message = format!("the guest is being {verb} {}", way.in_words());
    tracing::info!(?action, force, ?way, "power");
    (Done { message }, end(action, way))
}
