//! A signal as the kernel takes it.
#![expect(unsafe_code, reason = "rustix offers real-time signals as unsafe only")]

use minions_proto::message::Signal as Named;
use rustix::process::Signal;
use std::num::NonZeroI32;

/// Every signal that has a name on the wire, real-time ones included.
pub(crate) fn of(signal: Named) -> Signal {
    let Some(number) = NonZeroI32::new(signal.number()) else { return Signal::TERM };
    Signal::from_named_raw_nonzero(number).unwrap_or_else(|| {
        // SAFETY: the number is one of 34 to 64, which the kernel knows. What must not be done with
        // such a signal is to disturb this process's own C library, which may use it; it is only
        // ever sent to another program's process group.
        unsafe { Signal::from_raw_nonzero_unchecked(number) }
    })
}
