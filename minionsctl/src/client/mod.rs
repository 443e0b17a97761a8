//! HTTP client of minionsd.
//!
//! * [`daemon_client`]: the client, and calls with one answer. [`tls`]: its certificates.
//! * [`lines`]: answers of many lines. [`limits`]: lengths of answers. [`events`], [`event_parser`]: the event stream.
//! * [`files`]: files of guests. [`transfers`]: files and trees in both directions; [`mod@upload_body`]: their bytes.
//! * [`upgrade`]: WebSockets, and connections in guests ([`connection_request`]). [`listener_link`]: listening sockets in
//!   guests.

mod connection_request;
mod daemon_client;
mod event_parser;
mod events;
mod files;
mod limits;
mod lines;
mod listener_link;
mod tls;
mod transfers;
mod upgrade;
mod upload_body;

pub(crate) use connection_request::ConnectionRequest;
pub(crate) use daemon_client::{CallDeadlines, DaemonClient, vm_path};
pub(crate) use events::EventMessage;
pub(crate) use files::FileBody;
pub(crate) use listener_link::{ListenerCommands, ListenerLink, ListenerLoss};
pub(crate) use transfers::PutOptions;
pub(crate) use upload_body::{END, UploadSender, upload_body};
