//! What a process inside a guest can do over VSOCK: put into the rig's guest image, static.
//!
//! ```text
//! vsock-probe cid                 prints the guest's own CID
//! vsock-probe connect CID PORT    answered | closed | refused
//! vsock-probe bind PORT           bound | refused
//! ```

use std::env;
use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::time::Duration;
use vsock::{VMADDR_CID_ANY, VsockListener, VsockStream, get_local_cid};

/// An agent answers in milliseconds.
const DEADLINE: Duration = Duration::from_secs(5);

/// `{"type":"health_check"}`, framed.
const HEALTH_CHECK: &[u8] = b"\x00\x00\x00\x17{\"type\":\"health_check\"}";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let said = match args[..] {
        ["cid"] => get_local_cid().map_or_else(|error| error.to_string(), |cid| cid.to_string()),
        ["connect", cid, port] => match (cid.parse(), port.parse()) {
            (Ok(cid), Ok(port)) => connect(cid, port),
            _ => return ExitCode::from(2),
        },
        ["bind", port] => match port.parse() {
            Ok(port) => VsockListener::bind_with_cid_port(VMADDR_CID_ANY, port)
                .map_or_else(|_| "refused".to_owned(), |_| "bound".to_owned()),
            Err(_) => return ExitCode::from(2),
        },
        _ => return ExitCode::from(2),
    };
    match writeln!(io::stdout(), "{said}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn connect(cid: u32, port: u32) -> String {
    match VsockStream::connect_with_cid_port(cid, port) {
        Ok(stream) => if ask(stream).unwrap_or(false) { "answered" } else { "closed" }.to_owned(),
        Err(_) => "refused".to_owned(),
    }
}

/// Whether a single byte of an answer comes.
fn ask(mut stream: VsockStream) -> io::Result<bool> {
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.write_all(HEALTH_CHECK)?;
    Ok(stream.read(&mut [0])? > 0)
}
