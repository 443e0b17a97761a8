//! The VSOCK port of an agent.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

/// A VSOCK port on which an agent can listen: 1 to 4294967294. The kernel has other meanings for 0, and for
/// 4294967295 (any port).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentPort(NonZeroU32);

/// A number or text that is not a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a VSOCK port, 1 to 4294967294")]
pub struct InvalidPort;

impl AgentPort {
    /// The port of an agent that was not given another one. It is not privileged: inside a guest a systemd socket
    /// unit holds it.
    pub const DEFAULT: Self = match NonZeroU32::new(1024) {
        Some(port) => Self(port),
        None => unreachable!(),
    };

    /// The port as the kernel and `CONNECT` have it.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl Default for AgentPort {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl TryFrom<i64> for AgentPort {
    type Error = InvalidPort;

    fn try_from(number: i64) -> Result<Self, InvalidPort> {
        let port = u32::try_from(number).ok().filter(|port| *port != u32::MAX);
        port.and_then(NonZeroU32::new).map(Self).ok_or(InvalidPort)
    }
}

impl FromStr for AgentPort {
    type Err = InvalidPort;

    fn from_str(text: &str) -> Result<Self, InvalidPort> {
        let decimal = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = decimal.then(|| text.parse::<i64>().ok()).flatten();
        number.ok_or(InvalidPort)?.try_into()
    }
}

impl fmt::Display for AgentPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_but_the_kernels_own_is_a_port() {
        for (number, text) in [(1, "1"), (1024, "1024"), (4_294_967_294, "4294967294")] {
            let port = AgentPort::try_from(number).unwrap();
            assert_eq!((i64::from(port.get()), port.to_string().as_str()), (number, text));
            assert_eq!(text.parse(), Ok(port));
        }
        for number in [i64::MIN, -1, 0, 4_294_967_295, 4_294_967_296, i64::MAX] {
            assert_eq!(AgentPort::try_from(number), Err(InvalidPort), "{number}");
        }
        for text in [
            "",
            "0",
            "-1",
            "+1",
            " 1",
            "1 ",
            "0x400",
            "1024\n",
            "4294967295",
            "99999999999999999999",
        ] {
            assert_eq!(text.parse::<AgentPort>(), Err(InvalidPort), "{text:?}");
        }
        assert_eq!(AgentPort::default().get(), 1024);
    }
}
