//! Whom an `https://` daemon must be vouched for by, and what it gets to see of us.

use crate::config::Config;
use crate::failure::Failure;
use reqwest::{Certificate, ClientBuilder, Identity};
use std::fs;
use std::path::Path;

/// Nobody, where there is no TLS: to read all certificates of this machine takes longer than a call.
pub(super) fn none(builder: ClientBuilder) -> ClientBuilder {
    choose_cryptography();
    builder.tls_certs_only([])
}

/// Whom `config` says.
pub(super) fn trust(mut builder: ClientBuilder, config: &Config) -> Result<ClientBuilder, Failure> {
    choose_cryptography();
    if let Some(path) = &config.ca_file {
        let authorities = Certificate::from_pem_bundle(&read(path)?).unwrap_or_default();
        if authorities.is_empty() {
            return Err(Failure::Pem { path: path.clone(), what: "certificate" });
        }
        builder = builder.tls_certs_only(authorities);
    }
    if let Some(path) = &config.cert_file {
        let what = "certificate with its private key";
        let pem = |_| Failure::Pem { path: path.clone(), what };
        builder = builder.identity(Identity::from_pem(&read(path)?).map_err(pem)?);
    }
    Ok(builder)
}

fn choose_cryptography() {
    // Fails only if it was chosen already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|source| Failure::File { path: path.to_owned(), source })
}
