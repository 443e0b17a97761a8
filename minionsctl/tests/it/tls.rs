//! A minionsd with TLS, as from another machine: CA bundle, token and client certificate.

use crate::shared::command::{Ran, ctl};
use minionsd::Daemon;
use minionsd::config::{TlsFiles, TokenFile};
use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use tempfile::TempDir;
use testkit::daemon::config;
use testkit::fake_vmm::{Behaviour, FakeVmm, agent};
use testkit::wait::until_async;

/// A daemon over TLS with the VM `web-1`.
struct Host {
    dir: TempDir,
    address: SocketAddr,
    _vm: FakeVmm,
}

impl Host {
    async fn start(wants_certificates: bool) -> Self {
        let mut dir = tempfile::Builder::new();
        let dir = dir.permissions(Permissions::from_mode(0o755)).tempdir().unwrap();
        certify(dir.path());
        let file = |name: &str| dir.path().join(name);
        fs::write(file("token"), "a-token-that-is-only-for-this-test").unwrap();
        fs::set_permissions(file("token"), Permissions::from_mode(0o600)).unwrap();
        let mut config = config(dir.path());
        config.token_file = Some(TokenFile::Existing(file("token")));
        config.tls = Some(TlsFiles {
            certificate: file("pair.pem"),
            key: file("pair.pem"),
            client_ca: wants_certificates.then(|| file("authority.pem")),
        });
        let daemon = Daemon::bind(config).await.unwrap();
        let address = daemon.local_addr().unwrap();
        tokio::spawn(daemon.serve(std::future::pending()));
        let vm = FakeVmm::start(dir.path(), "web-1", Behaviour::Agent(agent().unwrap())).unwrap();
        let host = Self { dir, address, _vm: vm };
        host.until_ready().await;
        host
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn ctl(&self, flags: &[&str], args: &[&str]) -> Output {
        let mut command = ctl(&format!("https://{}", self.address), &[]);
        for pair in flags.chunks(2) {
            command.arg(pair[0]).arg(self.file(pair[1]));
        }
        command.args(args).output().unwrap()
    }

    async fn until_ready(&self) {
        let unix = format!("unix://{}", self.file("minionsd.sock").display());
        until_async("web-1 is ready", async || {
            let health = Ran::of(&mut ctl(&unix, &["health", "web-1"]));
            if health.code == 0 { Ok(()) } else { Err(health.stderr) }
        })
        .await;
    }
}

/// Creates a CA, and one certificate with its key, for both the daemon and the client.
fn certify(dir: &Path) {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new([]).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let certificate = certificate.signed_by(&key, &issuer).unwrap();
    fs::write(dir.join("authority.pem"), authority_pem).unwrap();
    fs::write(dir.join("pair.pem"), certificate.pem() + &key.serialize_pem()).unwrap();
}

#[track_caller]
fn fails(output: &Output, expected: &str) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains(expected), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_with_a_trusted_certificate_is_used_like_any_other() {
    let host = Host::start(false).await;
    let trusted = ["--ca-file", "authority.pem", "--token-file", "token"];
    let listed = host.ctl(&trusted, &["ls"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("web-1"), "{listed:?}");
    // Over a WebSocket.
    let ran = host.ctl(&trusted, &["exec", "web-1", "--", "sh", "-c", "echo hi; exit 7"]);
    assert_eq!((ran.status.code(), &ran.stdout[..]), (Some(7), &b"hi\n"[..]), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_with_an_untrusted_certificate_gets_no_token() {
    let host = Host::start(false).await;
    fails(&host.ctl(&["--token-file", "token"], &["ls"]), "cannot reach minionsd");
    fails(&host.ctl(&[], &["ls"]), "the certificate of the server is not trusted");
    fails(&host.ctl(&[], &["ls"]), "hint: --ca-file");
    fails(&host.ctl(&["--ca-file", "token"], &["ls"]), "contains no PEM certificate");
    fails(&host.ctl(&["--ca-file", "missing"], &["ls"]), "cannot read ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_scheme_is_reported_with_the_right_one() {
    let host = Host::start(false).await;
    let plain = ctl(&format!("http://{}", host.address), &["ls"]).output().unwrap();
    fails(&plain, "the server does not speak plain HTTP");
    fails(&plain, "hint: if minionsd serves TLS there, use https://");
    let daemon = testkit::daemon::TestDaemon::start().await;
    let tls = ctl(&daemon.url("").replace("http://", "https://"), &["ls"]).output().unwrap();
    fails(&tls, "the server does not speak TLS");
    fails(&tls, "hint: if minionsd serves plain HTTP there, use http://");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_authenticates_to_a_daemon_that_requires_a_certificate() {
    let host = Host::start(true).await;
    let trusted = ["--ca-file", "authority.pem", "--token-file", "token"];
    assert!(!host.ctl(&trusted, &["ls"]).status.success());
    let shown = [&trusted[..], &["--cert-file", "pair.pem"]].concat();
    let listed = host.ctl(&shown, &["ls"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("web-1"), "{listed:?}");
    fails(&host.ctl(&["--cert-file", "token"], &["ls"]), "certificate with its private key");
}
