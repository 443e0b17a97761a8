//! Conversion of signals from the wire to the kernel's numbers.
#![expect(unsafe_code, reason = "rustix offers real-time signals as unsafe only")]

use minions_proto::message::Signal as Named;
use rustix::process::Signal;
use std::num::NonZeroI32;

/// Converts a signal of the wire, including real-time signals, to the kernel's.
pub(crate) fn of(signal: Named) -> Signal {
    let Some(number) = NonZeroI32::new(signal.number()) else { return Signal::TERM };
    Signal::from_named_raw_nonzero(number).unwrap_or_else(|| {
        // SAFETY: the number is in 34 to 64, which are valid to the kernel. Such a signal could disturb the C
        // library of this process, which may use it internally; it is only sent to other programs.
        unsafe { Signal::from_raw_nonzero_unchecked(number) }
    })
}
