//! TLS settings: trusted CAs of an `https://` daemon, and the client certificate.

use crate::bounded_file::read_settings;
use crate::config::ClientConfig;
use crate::failure::Failure;
use reqwest::{Certificate, ClientBuilder, Identity};

/// Sets up a client without TLS and without trusted CAs, because loading the system store takes longer than a call.
pub(super) fn none(builder: ClientBuilder) -> ClientBuilder {
    install_crypto_provider();
    builder.tls_certs_only([])
}

/// Sets up TLS with the CA bundle and the client certificate of `config`.
pub(super) fn trust(
    mut builder: ClientBuilder,
    config: &ClientConfig,
) -> Result<ClientBuilder, Failure> {
    install_crypto_provider();
    if let Some(path) = &config.ca_file {
        let authorities = Certificate::from_pem_bundle(&read_settings(path)?).unwrap_or_default();
        if authorities.is_empty() {
            return Err(Failure::Pem { path: path.clone(), what: "certificate" });
        }
        builder = builder.tls_certs_only(authorities);
    }
    if let Some(path) = &config.cert_file {
        let what = "certificate with its private key";
        let pem = |_| Failure::Pem { path: path.clone(), what };
        builder = builder.identity(Identity::from_pem(&read_settings(path)?).map_err(pem)?);
    }
    Ok(builder)
}

fn install_crypto_provider() {
    // Fails only if a provider is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
