//! Settings that are one of several words.

use clap::ValueEnum;
use serde::Deserialize;
use std::str::FromStr;

/// A setting that `none` turns off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OptionalSetting<T> {
    /// Turned off.
    Off,
    /// Turned on, with this value.
    On(T),
}

impl<T> OptionalSetting<T> {
    pub(super) fn into_option(self) -> Option<T> {
        match self {
            Self::Off => None,
            Self::On(value) => Some(value),
        }
    }
}

impl<T: FromStr> FromStr for OptionalSetting<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        if text == "none" { Ok(Self::Off) } else { text.parse().map(Self::On) }
    }
}

impl<'de, T: FromStr<Err: std::fmt::Display>> Deserialize<'de> for OptionalSetting<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Human-readable text.
    Text,
    /// JSON, one object per line.
    Json,
}

/// Callers that may read over loopback TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum TcpRead {
    /// Every user of this machine.
    Local,
    /// Callers with the bearer token.
    Token,
}

/// Credential that allows callers to operate over TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum TcpOperate {
    /// The bearer token.
    Token,
    /// The bearer token, or on loopback the uid of the process that connects. A relay that an operator runs then
    /// operates on behalf of all its users.
    Uid,
}

/// Policy for operate calls while the audit log cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum AuditRule {
    /// Refuse the calls with `audit_unavailable`.
    Required,
    /// Serve the calls, and count lost entries.
    BestEffort,
}
