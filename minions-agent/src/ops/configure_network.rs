//! `configure_network`, `network_confirm`, `read_network`: the whole request is checked before anything
//! is changed.

use crate::error_chain;
use crate::net::{ChangeError, NetworkConfigurator, NetworkError};
use minions_proto::cidr::InterfaceAddress;
use minions_proto::message::{
    ChangeNetwork, ConfigureNetwork, Done, NetworkChanged, NetworkConfirm, NetworkState,
};
use minions_proto::{AgentError, ErrorCode};
use std::net::IpAddr;

/// Answers the base form of `configure_network`. A change that has begun is completed even if the host
/// disconnects: a half-configured network is worse than either state.
pub(super) async fn base(
    network: &NetworkConfigurator,
    call: &ConfigureNetwork,
) -> Result<NetworkChanged, AgentError> {
    let configured = network.configure(call.plan()?).await;
    let mut changed = configured.map_err(|error| match error.error.duplicate() {
        Some(_) => AgentError { field: Some("ip".to_owned()), ..failed(error) },
        None => failed(error),
    })?;
    // Also if nothing changed: the base protocol specifies this message.
    changed.message = "network configured".to_owned();
    Ok(changed)
}

/// Answers the extended form of `configure_network`. A change that has begun is completed, as in [`base`].
pub(super) async fn rich(
    network: &NetworkConfigurator,
    call: &ChangeNetwork,
) -> Result<NetworkChanged, AgentError> {
    network.configure(call.plan()?).await.map_err(|error| {
        let field = error.error.duplicate().and_then(|address| field_of(call, address));
        match field {
            Some(field) => AgentError { field: Some(field), ..failed(error) },
            None => failed(error),
        }
    })
}

/// Returns the path of an address in the request.
fn field_of(call: &ChangeNetwork, address: IpAddr) -> Option<String> {
    let is_it = |text: &String| {
        InterfaceAddress::parse("address", text).is_ok_and(|one| one.address() == address)
    };
    let interfaces = call.interfaces.iter().enumerate();
    let mut found = interfaces.filter_map(|(at, interface)| {
        let index = interface.addresses.iter().flatten().position(is_it)?;
        Some(format!("interfaces[{at}].addresses[{index}]"))
    });
    found.next().or_else(|| call.ip.as_ref().filter(|ip| is_it(ip)).map(|_| "ip".to_owned()))
}

pub(super) async fn confirm(
    network: &NetworkConfigurator,
    call: &NetworkConfirm,
) -> Result<Done, AgentError> {
    network.confirm(&call.id).await.map_err(|error| refused(&error))?;
    Ok(Done { message: "network change confirmed".to_owned() })
}

pub(super) async fn read(network: &NetworkConfigurator) -> Result<NetworkState, AgentError> {
    network.read().await.map_err(|error| refused(&error))
}

pub(crate) fn failed(failed: ChangeError) -> AgentError {
    let ChangeError { step, error, restored } = failed;
    tracing::warn!(step, error = error_chain(&error), "network not configured");
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
            tracing::error!(error = error_chain(&error), "failed to restore the network");
            refusal.message = format!(
                "{}; failed to restore the network: {}",
                refusal.message,
                error_chain(&error)
            );
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
    AgentError::new(code, error_chain(error)).with_errno(error.errno())
}
