//! A WebSocket's opening handshake (RFC 6455, section 4), as one more request of the same client: it
//! goes where the others go, with the same token, and is refused with the same problems.

use super::Client;
use crate::failure::Failure;
use reqwest::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use reqwest::{Method, StatusCode, Upgraded};
use std::time::Duration;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// minionsd answers this without asking a guest.
const DEADLINE: Duration = Duration::from_secs(10);

impl Client {
    /// `GET path`, upgraded.
    pub(crate) async fn upgrade(&self, path: &str) -> Result<Upgraded, Failure> {
        let key = generate_key();
        let response = self
            .http
            .request(Method::GET, format!("{}{path}", self.base))
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, &key)
            .timeout(DEADLINE)
            .send()
            .await
            .map_err(|error| self.no_response(error))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(self.problem(response).await);
        }
        let accept = derive_accept_key(key.as_bytes());
        if response.headers().get(SEC_WEBSOCKET_ACCEPT).is_none_or(|value| value != &accept) {
            return Err(self.not_minionsd("it upgrades to something else".into()));
        }
        response.upgrade().await.map_err(|error| self.no_response(error))
    }
}
