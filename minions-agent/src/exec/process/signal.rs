//! Conversion of signals from the wire protocol to rustix.
#![expect(unsafe_code, reason = "rustix has only an unsafe constructor for real-time signals")]

use minions_proto::message::Signal as WireSignal;
use rustix::process::Signal;
use std::num::NonZeroI32;

/// Converts a signal of the wire protocol, which may be a real-time signal.
pub(crate) fn of(signal: WireSignal) -> Signal {
    // The number is never 0; the fallback avoids a panic.
    let Some(number) = NonZeroI32::new(signal.number()) else { return Signal::TERM };
    Signal::from_named_raw_nonzero(number).unwrap_or_else(|| {
        // SAFETY: the number is in the range 34 to 64, all of which the kernel accepts. The C library may use
        // real-time signals internally, so one that is sent to this process could disturb it; these signals are
        // sent to other programs only.
        unsafe { Signal::from_raw_nonzero_unchecked(number) }
    })
}
