//! VSOCK port of an agent.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

/// VSOCK port on which an agent can listen: 1 to 4294967294. The kernel uses 0 and 4294967295 (any port) for other
/// purposes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentPort(NonZeroU32);

/// Number or text that is not a valid port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a VSOCK port, 1 to 4294967294")]
pub struct InvalidPort;

impl AgentPort {
    /// Default port. Unprivileged; in a guest with systemd, a socket unit holds it.
    pub const DEFAULT: Self = match NonZeroU32::new(1024) {
        Some(port) => Self(port),
        None => unreachable!(),
    };

    /// Returns the number, as the kernel and `CONNECT` use it.
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
    fn every_number_except_those_reserved_by_the_kernel_is_a_port() {
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
