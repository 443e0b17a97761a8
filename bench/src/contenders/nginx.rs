//! Two instances of nginx: one that serves the answer, and one that is a proxy for it. Both have a minimal
//! configuration and keep every connection open.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
};

use anyhow::Context;
use minions_proto::frame::PREFIX_LEN;

use crate::{
    programs::{background::BackgroundProgram, site::free_address},
    responder::health_reply,
};

/// Both instances; they are stopped together.
#[derive(Debug)]
pub(crate) struct NginxPair {
    proxy: BackgroundProgram,
    _upstream: BackgroundProgram,
    address: SocketAddr,
}

impl NginxPair {
    /// Starts both; all their files are in `dir`.
    pub(crate) fn start(dir: &Path) -> anyhow::Result<Self> {
        let address = free_address()?;
        let socket = dir.join("upstream.sock");
        let frame = health_reply()?;
        let reply = str::from_utf8(&frame[PREFIX_LEN..])?;
        let server = format!(
            "server {{ listen unix:{0}; keepalive_requests 100000000; location / {{ \
             default_type application/json; return 200 '{reply}'; }} }}",
            socket.display()
        );
        let mut upstream = start(dir, "upstream", 1, &server)?;
        upstream.wait_until("the upstream nginx has created its socket", || {
            socket.exists().then_some(())
        })?;
        let server = format!(
            "upstream backend {{ server unix:{}; keepalive 64; keepalive_requests 100000000; }}\n\
             server {{ listen {address}; keepalive_requests 100000000; location / {{ \
             proxy_pass http://backend; proxy_http_version 1.1; \
             proxy_set_header Connection \"\"; }} }}",
            socket.display()
        );
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let mut proxy = start(dir, "proxy", workers, &server)?;
        proxy.wait_until("the nginx proxy listens", || TcpStream::connect(address).ok())?;
        Ok(Self { proxy, _upstream: upstream, address })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the process id of the proxy.
    pub(crate) fn pid(&self) -> u32 {
        self.proxy.pid()
    }
}

fn start(
    dir: &Path,
    name: &str,
    workers: usize,
    server: &str,
) -> anyhow::Result<BackgroundProgram> {
    let own = dir.join(name);
    fs::create_dir(&own).with_context(|| format!("cannot create {}", own.display()))?;
    let dir = own.display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {dir}/{what};"))
        .concat();
    let user = if rustix::process::geteuid().is_root() { "user root;\n" } else { "" };
    let configuration = format!(
        "{user}daemon off;\nworker_processes {workers};\npid {dir}/pid;\nerror_log stderr warn;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; {temporary}\n{server}\n}}\n"
    );
    let file = own.join("nginx.conf");
    fs::write(&file, configuration).context("cannot configure nginx")?;
    let mut command = Command::new("nginx");
    command.arg("-e").arg("stderr").arg("-c").arg(&file);
    BackgroundProgram::spawn(&command, &own.join("log"))
}
