//! Access beyond loopback requires TLS and the token. Tested in a separate network namespace, whose only
//! address is not loopback.

use rustix::process::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use testkit::minionsd::Minionsd;
use testkit::wait::until;

const ADDRESS: &str = "10.99.99.1";
const URL: &str = "https://10.99.99.1:7443";
const TOKEN: &str = "a-token-that-is-only-for-this-test";

/// Running daemon in its namespace.
struct Daemon(Minionsd);

impl Daemon {
    fn start() -> Self {
        let daemon = Self::spawn(&[]);
        until("the daemon serves", || daemon.curl(&["/healthz"]).0 != 0);
        daemon
    }

    /// Starts the daemon without waiting until it serves.
    fn spawn(flags: &[&str]) -> Self {
        let builder = Minionsd::builder().token(TOKEN).listen("10.99.99.1:7443");
        let dir = builder.path().to_owned();
        certify(&dir, "first");
        fs::write(dir.join("bearer"), format!("Authorization: Bearer {TOKEN}")).unwrap();
        let in_namespace = format!(
            "ip link set lo up && ip address add {ADDRESS}/32 dev lo && exec \"$0\" \"$@\""
        );
        let builder = builder.launcher(["unshare", "--net", "--", "sh", "-c", &in_namespace]);
        let builder = builder.arg("--tls-cert").arg(dir.join("certificate.pem"));
        Self(builder.arg("--tls-key").arg(dir.join("key.pem")).args(flags).spawn())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.dir().join(name)
    }

    /// Sends a request with curl in the same namespace; returns the HTTP status (0 without one) and the body.
    fn curl(&self, args: &[&str]) -> (u16, String) {
        let (path, flags) = args.split_last().unwrap();
        let pid = self.0.pid().to_string();
        let output = Command::new("nsenter")
            .args(["--net", "--target", &pid, "--", "curl", "-sS", "--max-time", "10"])
            .args(["-w", "\n%{http_code}", "--cacert"])
            .arg(self.file("authority.pem"))
            .args(flags)
            .arg(format!("{URL}{path}"))
            .output()
            .unwrap();
        let output = String::from_utf8(output.stdout).unwrap();
        let (body, status) = output.rsplit_once('\n').unwrap_or_default();
        (status.parse().unwrap_or(0), body.to_owned())
    }

    fn with_token(&self, path: &str) -> (u16, String) {
        let header = format!("@{}", self.file("bearer").display());
        self.curl(&["-H", &header, path])
    }
}

/// Creates an authority, and a certificate issued by it for the daemon's address and for a client.
fn certify(dir: &Path, name: &str) {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new([]).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    authority.distinguished_name.push(rcgen::DnType::CommonName, name);
    let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new([ADDRESS.to_owned()]).unwrap();
    let certificate = certificate.signed_by(&key, &issuer).unwrap();
    fs::write(dir.join("authority.pem"), authority_pem).unwrap();
    fs::write(dir.join("certificate.pem"), certificate.pem()).unwrap();
    fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
}

#[test]
fn beyond_loopback_no_request_is_answered_without_the_token() {
    let daemon = Daemon::start();
    for path in ["/vms", "/healthz", "/openapi.json", "/docs/", "/whoami"] {
        let (status, body) = daemon.curl(&[path]);
        let is_rejected = status == 401 || (path == "/whoami" && body.contains("\"scopes\":[]"));
        assert!(is_rejected, "{path}: {status} {body}");
        assert_eq!(daemon.with_token(path).0, 200, "{path}");
    }
    let wrong = ["-H", "Authorization: Bearer a-token-that-is-not-of-this-daemon", "/vms"];
    assert_eq!(daemon.curl(&wrong).0, 401);
    let (status, body) = daemon.curl(&["-H", "Authorization: Bearer ", "/vms"]);
    assert!(status == 401 && body.contains("the bearer token is empty"), "{status} {body}");
    assert!(daemon.with_token("/whoami").1.contains("\"kind\":\"token\""));
    let plain = ["--http1.1", "-k", "--url", "http://10.99.99.1:7443/vms", "/vms"];
    assert!(
        !daemon.curl(&plain).1.contains("\"vms\""),
        "plain HTTP must not be served on this address"
    );
}

#[test]
fn after_sighup_a_renewed_certificate_is_served_but_not_a_broken_one() {
    let daemon = Daemon::start();
    let hang_up = || daemon.0.signal(Signal::HUP);
    fs::write(daemon.file("certificate.pem"), "nonsense").unwrap();
    hang_up();
    assert_eq!(daemon.with_token("/vms").0, 200, "the daemon must keep the old certificate");
    certify(daemon.0.dir(), "second");
    assert_eq!(daemon.with_token("/vms").0, 0, "curl trusts the second authority only");
    hang_up();
    until("the new certificate is served", || daemon.with_token("/vms").0 == 200);
}

#[test]
fn with_a_client_authority_only_its_clients_are_served() {
    let authorities = tempfile::tempdir().unwrap();
    certify(authorities.path(), "clients");
    let file = |name: &str| authorities.path().join(name).to_str().unwrap().to_owned();
    let daemon = Daemon::spawn(&["--tls-client-ca", &file("authority.pem")]);
    let header = format!("@{}", daemon.file("bearer").display());
    let (certificate, key) = (file("certificate.pem"), file("key.pem"));
    let args = ["--cert", &certificate, "--key", &key, "-H", &header, "/vms"];
    until("a client with a certificate is served", || daemon.curl(&args).0 == 200);
    assert_eq!(
        daemon.with_token("/vms").0,
        0,
        "without a client certificate the handshake must fail"
    );
}
