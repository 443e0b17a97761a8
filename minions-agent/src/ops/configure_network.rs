//! `configure_network`: the whole request is checked before anything is touched.

use super::chain;
use crate::net::{Network, NetworkError};
use minions_proto::message::{ConfigureNetwork, Done};
use minions_proto::{AgentError, ErrorCode};

/// Once begun, a configuration is finished even if the host goes away: half a network is worse
/// than either.
pub(super) async fn answer(network: &Network, call: &ConfigureNetwork) -> Result<Done, AgentError> {
    network.configure(call.plan()?).await.map_err(refused)?;
    Ok(Done { message: "network configured".to_owned() })
}

fn refused(error: NetworkError) -> AgentError {
    tracing::warn!(error = chain(&error), "network not configured");
    let code = match error {
        NetworkError::Interrupted => ErrorCode::Internal,
        _ => ErrorCode::NetworkFailed,
    };
    AgentError::new(code, chain(&error)).with_errno(error.errno())
}
