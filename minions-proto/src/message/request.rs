//! Decoding a request, as the agent does.

use super::{
    Call, ChangeNetwork, ConfigureNetwork, Exec, ExecAttach, ExecInspect, ExecList, ExecRemove,
    ExecSignal, ExecStart, HealthCheck, NetworkConfirm, Power, ReadNetwork, ReportStatus, SetClock,
    WriteFile,
};
use crate::error::{AgentError, ErrorCode};
use crate::json;
use serde::{Deserialize, de::DeserializeOwned};
use std::borrow::Cow;

/// Every request that this version knows.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Is the agent alive, and what is it?
    HealthCheck(HealthCheck),
    /// Give the guest its network.
    ConfigureNetwork(ConfigureNetwork),
    /// Likewise, with more than the base form has.
    ChangeNetwork(Box<ChangeNetwork>),
    /// The network may stay as it was changed.
    NetworkConfirm(NetworkConfirm),
    /// What network is there?
    ReadNetwork(ReadNetwork),
    /// Run a program and collect its output.
    Exec(Exec),
    /// How is the guest doing?
    ReportStatus(ReportStatus),
    /// Put a file into the guest.
    WriteFile(WriteFile),
    /// Start a program as an object; opens a stream.
    ExecStart(Box<ExecStart>),
    /// Come back to one; opens a stream.
    ExecAttach(ExecAttach),
    /// Which ones are there?
    ExecList(ExecList),
    /// One of them, or its end.
    ExecInspect(ExecInspect),
    /// Send it a signal.
    ExecSignal(ExecSignal),
    /// End and forget it.
    ExecRemove(ExecRemove),
    /// Set the guest's clock.
    SetClock(SetClock),
    /// End the guest, or start it anew.
    Power(Power),
}

/// A well-delimited frame that is no request. The connection lives on.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// No JSON object with a `type`.
    #[error("request is not a JSON object with a string field `type`")]
    NoType(#[source] serde_json::Error),
    /// Deeper than any request.
    #[error("request is malformed: {0}")]
    TooDeep(#[from] json::TooDeep),
    /// A `type` minted after this version, or misspelt.
    #[error("request type is not known to this agent")]
    UnknownType,
    /// A known `type` whose fields don't fit.
    #[error("`{request_type}` is malformed: {source}")]
    Fields {
        /// The `type`.
        request_type: &'static str,
        /// What serde says, which names the field.
        source: serde_json::Error,
    },
}

/// Only the discriminator; everything else is skipped without being stored.
#[derive(Deserialize)]
struct TypeOnly<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
}

impl Request {
    /// Decodes one frame's payload.
    ///
    /// # Errors
    ///
    /// [`RequestError`]; convert it into the reply with `AgentError::from`.
    pub fn decode(payload: &[u8]) -> Result<Self, RequestError> {
        json::check_depth(payload)?;
        let TypeOnly { r#type } = serde_json::from_slice(payload).map_err(RequestError::NoType)?;
        match r#type.as_ref() {
            HealthCheck::TYPE => Ok(Self::HealthCheck(HealthCheck {})),
            ConfigureNetwork::TYPE => Self::decode_network(payload),
            NetworkConfirm::TYPE => fields(payload).map(Self::NetworkConfirm),
            ReadNetwork::TYPE => Ok(Self::ReadNetwork(ReadNetwork {})),
            Exec::TYPE => fields(payload).map(Self::Exec),
            ReportStatus::TYPE => Ok(Self::ReportStatus(ReportStatus {})),
            WriteFile::TYPE => fields(payload).map(Self::WriteFile),
            ExecStart::TYPE => fields(payload).map(Box::new).map(Self::ExecStart),
            ExecAttach::TYPE => fields(payload).map(Self::ExecAttach),
            ExecList::TYPE => Ok(Self::ExecList(ExecList {})),
            ExecInspect::TYPE => fields(payload).map(Self::ExecInspect),
            ExecSignal::TYPE => fields(payload).map(Self::ExecSignal),
            ExecRemove::TYPE => fields(payload).map(Self::ExecRemove),
            SetClock::TYPE => fields(payload).map(Self::SetClock),
            Power::TYPE => fields(payload).map(Self::Power),
            _ => Err(RequestError::UnknownType),
        }
    }

    /// Two forms under one name: whatever the base form can say is the base form.
    fn decode_network(payload: &[u8]) -> Result<Self, RequestError> {
        let change: ChangeNetwork = fields(payload)?;
        match change.beyond_base() {
            None => fields(payload).map(Self::ConfigureNetwork),
            Some(_) => Ok(Self::ChangeNetwork(Box::new(change))),
        }
    }

    /// The `type` on the wire.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::HealthCheck(_) => HealthCheck::TYPE,
            Self::ConfigureNetwork(_) | Self::ChangeNetwork(_) => ConfigureNetwork::TYPE,
            Self::NetworkConfirm(_) => NetworkConfirm::TYPE,
            Self::ReadNetwork(_) => ReadNetwork::TYPE,
            Self::Exec(_) => Exec::TYPE,
            Self::ReportStatus(_) => ReportStatus::TYPE,
            Self::WriteFile(_) => WriteFile::TYPE,
            Self::ExecStart(_) => ExecStart::TYPE,
            Self::ExecAttach(_) => ExecAttach::TYPE,
            Self::ExecList(_) => ExecList::TYPE,
            Self::ExecInspect(_) => ExecInspect::TYPE,
            Self::ExecSignal(_) => ExecSignal::TYPE,
            Self::ExecRemove(_) => ExecRemove::TYPE,
            Self::SetClock(_) => SetClock::TYPE,
            Self::Power(_) => Power::TYPE,
        }
    }
}

fn fields<C: Call + DeserializeOwned>(payload: &[u8]) -> Result<C, RequestError> {
    serde_json::from_slice(payload)
        .map_err(|source| RequestError::Fields { request_type: C::TYPE, source })
}

impl From<RequestError> for AgentError {
    fn from(error: RequestError) -> Self {
        let code = match error {
            RequestError::NoType(_) | RequestError::TooDeep(_) | RequestError::Fields { .. } => {
                ErrorCode::BadRequest
            }
            RequestError::UnknownType => ErrorCode::Unsupported,
        };
        Self::new(code, error.to_string())
    }
}
