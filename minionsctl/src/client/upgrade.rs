//! Upgrades of an HTTP connection to a WebSocket (RFC 6455, section 4) or to plain bytes, as requests of the same HTTP
//! client: with the same address and token, and refused with the same problems.

use super::connection_request::ConnectionRequest;
use super::daemon_client::DaemonClient;
use crate::failure::Failure;
use minions_api::VmName;
use reqwest::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use reqwest::{Method, StatusCode, Upgraded, Url};
use std::time::Duration;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// Deadline of the WebSocket handshake, which minionsd answers without contacting a guest.
const DEADLINE: Duration = Duration::from_secs(10);

/// Deadline for a connection or a listener in a guest. The deadline of minionsd is 15 s.
pub(super) const TARGET_DEADLINE: Duration = Duration::from_secs(20);

/// Deadline for the start of a file session. The deadline of minionsd is 30 s.
const SESSION_DEADLINE: Duration = Duration::from_secs(45);

impl DaemonClient {
    /// Opens a connection in a guest, and upgrades this one to plain bytes.
    pub(crate) async fn connect(
        &self,
        vm: &VmName,
        request: &ConnectionRequest,
    ) -> Result<Upgraded, Failure> {
        let url = request.url(self, vm)?;
        let request = self.http.request(Method::GET, url).header(CONNECTION, "Upgrade");
        let response = request
            .header(UPGRADE, "tcp")
            .timeout(TARGET_DEADLINE)
            .send()
            .await
            .map_err(|error| self.no_response(error))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(self.problem(response).await);
        }
        response.upgrade().await.map_err(|error| self.no_response(error))
    }

    /// Opens a connection in a guest, and upgrades this one to a WebSocket with channel messages, whose last one states
    /// how the connection ended. Plain bytes cannot: over a Unix socket, a broken connection looks like a complete one.
    pub(crate) async fn open_connection(
        &self,
        vm: &VmName,
        request: &ConnectionRequest,
    ) -> Result<Upgraded, Failure> {
        self.websocket(request.url(self, vm)?, TARGET_DEADLINE).await
    }

    /// Opens a file session as `user` (default: the agent's user).
    pub(crate) async fn open_file_session(
        &self,
        path: &str,
        user: Option<&str>,
    ) -> Result<Upgraded, Failure> {
        let query: Vec<_> = user.iter().map(|user| ("user", *user)).collect();
        let url = self.url(path, &query)?;
        self.websocket(url, SESSION_DEADLINE).await
    }

    /// Sends `GET path` and upgrades the connection to a WebSocket.
    pub(crate) async fn upgrade(&self, path: &str) -> Result<Upgraded, Failure> {
        let url = self.url(path, &[])?;
        self.websocket(url, DEADLINE).await
    }

    pub(super) async fn websocket(
        &self,
        url: Url,
        deadline: Duration,
    ) -> Result<Upgraded, Failure> {
        let key = generate_key();
        let response = self
            .http
            .request(Method::GET, url)
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, &key)
            .timeout(deadline)
            .send()
            .await
            .map_err(|error| self.no_response(error))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(self.problem(response).await);
        }
        let accept = derive_accept_key(key.as_bytes());
        if response.headers().get(SEC_WEBSOCKET_ACCEPT).is_none_or(|value| value != &accept) {
            return Err(
                self.not_minionsd("the header Sec-WebSocket-Accept of its reply is wrong".into())
            );
        }
        response.upgrade().await.map_err(|error| self.no_response(error))
    }
}
