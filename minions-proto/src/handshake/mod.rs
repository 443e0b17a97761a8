//! The hybrid-vsock handshake, which comes before the first frame.
//!
//! ```text
//!  host                          VMM                       guest
//!   │ connect(vm.vsock)           │                          │
//!   │ "CONNECT 1024\n"  ────────▶ │ AF_VSOCK connect 1024 ─▶ │
//!   │ ◀────────  "OK 1073741824\n"│ ◀───────────── accepted  │
//!   │ frames ◀───────────────────────────────────▶ frames    │
//! ```
//!
//! Behaviour of real backends, and the consequences:
//!
//! * A CONNECT that is split over two writes is dropped, so it is sent in one write.
//! * Bytes sent before `OK` are lost, so nothing is sent until it has arrived.
//! * Bytes may arrive together with `OK`, so the line is read byte by byte: a buffering reader
//!   would consume the start of the first frame.
//! * The number has no meaning (some send the port, some a counter), so only its form is checked.
//! * A refused port is answered by closing, without a line.
//! * Some VMMs crash when a client closes before its `\n`. [`initiate`] must therefore not be
//!   dropped halfway: run it in a task of its own.

#[cfg(feature = "tokio")]
mod exchange;
mod line;

#[cfg(feature = "tokio")]
pub use exchange::{HandshakeError, accept, grant, initiate};
pub use line::{LineError, MAX_LINE_LEN, connect_line, parse_connect, parse_ok};
