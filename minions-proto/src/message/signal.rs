//! Signals by name.

use crate::error::Invalid;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::str::FromStr;

/// Names and numbers of Linux signals on x86-64 and arm64 (signal(7)). The first name of a number
/// is the one that is displayed.
const NAMES: [(&str, i32); 35] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
    ("UNUSED", 31),
];

/// First real-time signal: `SIGRTMIN` of glibc, which reserves the kernel's 32 and 33 for itself.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// Signal that can be sent to a program. On the wire: its name, without `SIG`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signal(i32);

impl Signal {
    /// Request to terminate.
    pub const TERM: Self = Self(15);
    /// Termination that a program cannot prevent.
    pub const KILL: Self = Self(9);

    /// Returns the number, 1 to 64.
    #[must_use]
    pub fn number(self) -> i32 {
        self.0
    }

    /// Returns the signal with this number, if it can be sent to a program.
    #[must_use]
    pub fn from_number(number: i32) -> Option<Self> {
        let known = (1..=31).contains(&number) || (RTMIN..=RTMAX).contains(&number);
        known.then_some(Self(number))
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => f.write_str(name),
            None if self.0 == RTMIN => f.write_str("RTMIN"),
            None => write!(f, "RTMIN+{}", self.0 - RTMIN),
        }
    }
}

impl FromStr for Signal {
    type Err = Invalid;

    /// Parses `TERM`, `SIGTERM`, `term`, `15`, `RTMIN+3`, `RTMAX-1`.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let named = NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
        named
            .or_else(|| upper.parse().ok())
            .or_else(|| real_time(name))
            .and_then(Self::from_number)
            .ok_or_else(|| {
                Invalid::value(
                    "signal",
                    text,
                    "must be a signal name or number, such as TERM or 15",
                )
            })
    }
}

fn real_time(name: &str) -> Option<i32> {
    let (base, offset) = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(offset), _) => (RTMIN, offset),
        (_, Some(offset)) => (RTMAX, offset),
        (None, None) => return None,
    };
    let offset: i32 = if offset.is_empty() { 0 } else { offset.parse().ok()? };
    base.checked_add(offset).filter(|number| (RTMIN..=RTMAX).contains(number))
}

impl Serialize for Signal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Signal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_parsed_from_names_and_numbers() {
        for text in ["TERM", "SIGTERM", "term", "sigterm", "15"] {
            assert_eq!(text.parse(), Ok(Signal::TERM), "{text}");
        }
        for (text, number) in [("RTMIN", 34), ("RTMIN+3", 37), ("RTMAX-1", 63), ("SIGRTMAX", 64)] {
            assert_eq!(text.parse::<Signal>().unwrap().number(), number, "{text}");
        }
    }

    #[test]
    fn invalid_signals_are_rejected() {
        for text in ["", "SIG", "NOPE", "0", "-9", "32", "65", "RTMIN+31", "RTMAX-99", "9 "] {
            assert!(text.parse::<Signal>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn every_displayed_name_parses_to_the_same_signal() {
        for number in (1..=31).chain(34..=64) {
            let signal = Signal::from_number(number).unwrap();
            assert_eq!(signal.to_string().parse(), Ok(signal));
        }
    }
}
