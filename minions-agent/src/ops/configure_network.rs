//! `configure_network`, `network_confirm`, `read_network`: the whole request is checked before anything
//! is touched.

use super::chain;
use crate::net::{ChangeError, Network, NetworkError};
use minions_proto::message::{
    ChangeNetwork, ConfigureNetwork, Done, NetworkChanged, NetworkConfirm, NetworkState,
};
use minions_proto::{AgentError, ErrorCode};

/// Once begun, a configuration is finished even if the host goes away: half a network is worse
/// than either.
pub(super) async fn base(
    network: &Network,
    call: &ConfigureNetwork,
) -> Result<NetworkChanged, AgentError> {
    let mut changed = network.configure(call.plan()?).await.map_err(failed)?;
    // Also where nothing had to be done: the base protocol has these words.
    changed.message = "network configured".to_owned();
    Ok(changed)
}

/// Likewise.
pub(super) async fn rich(
    network: &Network,
    call: &ChangeNetwork,
) -> Result<NetworkChanged, AgentError> {
    network.configure(call.plan()?).await.map_err(failed)
}

pub(super) async fn confirm(network: &Network, call: &NetworkConfirm) -> Result<Done, AgentError> {
    network.confirm(&call.id).await.map_err(|error| refused(&error))?;
    Ok(Done { message: "network change confirmed".to_owned() })
}

pub(super) async fn read(network: &Network) -> Result<NetworkState, AgentError> {
    network.read().await.map_err(|error| refused(&error))
}

fn failed(failed: ChangeError) -> AgentError {
    let ChangeError { step, error, restored } = failed;
    tracing::warn!(step, error = chain(&error), "network not configured");
    let mut refusal = refused(&error);
    if refusal.code == Some(ErrorCode::InvalidArgument) {
        return refusal;
    }
    refusal.step = Some(step.to_owned());
    refusal.restored = Some(restored.is_ok());
    match restored {
        Ok(()) if step == "plan" => {}
        Ok(()) => refusal.message.push_str("; everything is as it was before"),
        Err(error) => {
            tracing::error!(error = chain(&error), "network not put back");
            refusal.message = format!("{}; not put back: {}", refusal.message, chain(&error));
        }
    }
    refusal
}

fn refused(error: &NetworkError) -> AgentError {
    let code = match error {
        NetworkError::Invalid(invalid) => return invalid.clone().into(),
        NetworkError::Interrupted => ErrorCode::Internal,
        NetworkError::Pending { .. } => ErrorCode::NetworkPending,
        NetworkError::ChangeGone => ErrorCode::NetworkChangeGone,
        _ => ErrorCode::NetworkFailed,
    };
    AgentError::new(code, chain(error)).with_errno(error.errno())
}
