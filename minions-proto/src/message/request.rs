//! Decoding of requests, as the agent does it.

use super::call::Call;
use super::clock::SetClock;
use super::exec::Exec;
use super::exec_object::{ExecInspect, ExecList, ExecRemove, ExecSignal};
use super::exec_stream::{ExecAttach, ExecStart};
use super::file::FileStart;
use super::forward::ForwardOpen;
use super::forward_listen::{ForwardAccept, ForwardListen};
use super::generation::{RestoreRequest, TokenCheck};
use super::health::HealthCheck;
use super::network::{ChangeNetwork, ConfigureNetwork, NetworkConfirm, ReadNetwork};
use super::power::Power;
use super::quiesce::{Quiesce, Thaw};
use super::sample::ReportSample;
use super::status::ReportStatus;
use super::write_file::WriteFile;
use crate::error::{AgentError, ErrorCode};
use crate::json;
use serde::{Deserialize, de::DeserializeOwned};
use std::borrow::Cow;

/// Request of any type that this version knows.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Reports the agent's liveness and identity.
    HealthCheck(HealthCheck),
    /// Reports the same to a host that names the VMM.
    TokenCheck(TokenCheck),
    /// Configures the guest's network, in the base form.
    ConfigureNetwork(ConfigureNetwork),
    /// Configures the guest's network, in the richer form.
    ChangeNetwork(Box<ChangeNetwork>),
    /// Confirms a network change.
    NetworkConfirm(NetworkConfirm),
    /// Reads the guest's network.
    ReadNetwork(ReadNetwork),
    /// Runs a program and collects its output.
    Exec(Exec),
    /// Reports the status of the guest.
    ReportStatus(ReportStatus),
    /// Reports a sample of the guest's figures.
    ReportSample(ReportSample),
    /// Writes a file in the guest.
    WriteFile(WriteFile),
    /// Starts a program as an object; opens a stream.
    ExecStart(Box<ExecStart>),
    /// Attaches to an exec; opens a stream.
    ExecAttach(ExecAttach),
    /// Lists the execs.
    ExecList(ExecList),
    /// Returns the state of an exec, now or at its end.
    ExecInspect(ExecInspect),
    /// Sends a signal to an exec.
    ExecSignal(ExecSignal),
    /// Ends and removes an exec.
    ExecRemove(ExecRemove),
    /// Sets the guest's clock.
    SetClock(SetClock),
    /// Powers off or reboots the guest.
    Power(Power),
    /// Starts an operation on files; opens a stream.
    FileStart(Box<FileStart>),
    /// Connects to a target in the guest; opens a stream.
    ForwardOpen(ForwardOpen),
    /// Listens in the guest; opens a stream.
    ForwardListen(ForwardListen),
    /// Takes a connection of a listener; opens a stream.
    ForwardAccept(ForwardAccept),
    /// Brings the file systems into a consistent state and keeps it.
    Quiesce(Quiesce),
    /// Ends a quiesce.
    Thaw(Thaw),
    /// Makes the guest the next generation, and runs the restore steps.
    Restore(Box<RestoreRequest>),
}

/// Reason why a complete frame is not a request. The connection remains usable.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The payload is not a JSON object with a `type`.
    #[error("request is not a JSON object with a string field `type`")]
    NoType(#[source] serde_json::Error),
    /// The JSON nests deeper than any request.
    #[error("request is malformed: {0}")]
    TooDeep(#[from] json::JsonTooDeep),
    /// The `type` was added after this version, or is misspelt.
    #[error("request type is not known to this agent")]
    UnknownType,
    /// The fields do not match the `type`.
    #[error("`{request_type}` is malformed: {source}")]
    Fields {
        /// Type of the request.
        request_type: &'static str,
        /// Error of serde, which names the field.
        source: serde_json::Error,
    },
}

/// Discriminator of a request; all other fields are skipped without being stored.
#[derive(Deserialize)]
struct TypeOnly<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
}

/// Field of a health check that distinguishes its two forms.
#[derive(Deserialize)]
struct HasToken {
    #[serde(default)]
    vmm_token: Option<serde::de::IgnoredAny>,
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
            HealthCheck::TYPE => Self::decode_health_check(payload),
            ConfigureNetwork::TYPE => Self::decode_network(payload),
            NetworkConfirm::TYPE => fields(payload).map(Self::NetworkConfirm),
            ReadNetwork::TYPE => Ok(Self::ReadNetwork(ReadNetwork {})),
            Exec::TYPE => fields(payload).map(Self::Exec),
            ReportStatus::TYPE => Ok(Self::ReportStatus(ReportStatus {})),
            ReportSample::TYPE => Ok(Self::ReportSample(ReportSample {})),
            WriteFile::TYPE => fields(payload).map(Self::WriteFile),
            ExecStart::TYPE => fields(payload).map(Box::new).map(Self::ExecStart),
            ExecAttach::TYPE => fields(payload).map(Self::ExecAttach),
            ExecList::TYPE => Ok(Self::ExecList(ExecList {})),
            ExecInspect::TYPE => fields(payload).map(Self::ExecInspect),
            ExecSignal::TYPE => fields(payload).map(Self::ExecSignal),
            ExecRemove::TYPE => fields(payload).map(Self::ExecRemove),
            SetClock::TYPE => fields(payload).map(Self::SetClock),
            Power::TYPE => fields(payload).map(Self::Power),
            FileStart::TYPE => fields(payload).map(Box::new).map(Self::FileStart),
            ForwardOpen::TYPE => fields(payload).map(Self::ForwardOpen),
            ForwardListen::TYPE => fields(payload).map(Self::ForwardListen),
            ForwardAccept::TYPE => fields(payload).map(Self::ForwardAccept),
            Quiesce::TYPE => fields(payload).map(Self::Quiesce),
            Thaw::TYPE => fields(payload).map(Self::Thaw),
            RestoreRequest::TYPE => fields(payload).map(Box::new).map(Self::Restore),
            _ => Err(RequestError::UnknownType),
        }
    }

    /// Decodes one of the two forms of `health_check`, with and without a token.
    fn decode_health_check(payload: &[u8]) -> Result<Self, RequestError> {
        let HasToken { vmm_token } = serde_json::from_slice(payload)
            .map_err(|source| RequestError::Fields { request_type: HealthCheck::TYPE, source })?;
        match vmm_token {
            None => Ok(Self::HealthCheck(HealthCheck {})),
            Some(_) => fields(payload).map(Self::TokenCheck),
        }
    }

    /// Decodes one of the two forms of `configure_network`: a request that the base form can
    /// express is the base form.
    fn decode_network(payload: &[u8]) -> Result<Self, RequestError> {
        let change: ChangeNetwork = fields(payload)?;
        match change.beyond_base() {
            None => fields(payload).map(Self::ConfigureNetwork),
            Some(_) => Ok(Self::ChangeNetwork(Box::new(change))),
        }
    }

    /// Returns the `type` on the wire.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::HealthCheck(_) | Self::TokenCheck(_) => HealthCheck::TYPE,
            Self::ConfigureNetwork(_) | Self::ChangeNetwork(_) => ConfigureNetwork::TYPE,
            Self::NetworkConfirm(_) => NetworkConfirm::TYPE,
            Self::ReadNetwork(_) => ReadNetwork::TYPE,
            Self::Exec(_) => Exec::TYPE,
            Self::ReportStatus(_) => ReportStatus::TYPE,
            Self::ReportSample(_) => ReportSample::TYPE,
            Self::WriteFile(_) => WriteFile::TYPE,
            Self::ExecStart(_) => ExecStart::TYPE,
            Self::ExecAttach(_) => ExecAttach::TYPE,
            Self::ExecList(_) => ExecList::TYPE,
            Self::ExecInspect(_) => ExecInspect::TYPE,
            Self::ExecSignal(_) => ExecSignal::TYPE,
            Self::ExecRemove(_) => ExecRemove::TYPE,
            Self::SetClock(_) => SetClock::TYPE,
            Self::Power(_) => Power::TYPE,
            Self::FileStart(_) => FileStart::TYPE,
            Self::ForwardOpen(_) => ForwardOpen::TYPE,
            Self::ForwardListen(_) => ForwardListen::TYPE,
            Self::ForwardAccept(_) => ForwardAccept::TYPE,
            Self::Quiesce(_) => Quiesce::TYPE,
            Self::Thaw(_) => Thaw::TYPE,
            Self::Restore(_) => RestoreRequest::TYPE,
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
