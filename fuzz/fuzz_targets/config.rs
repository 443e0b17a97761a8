//! Any text as a configuration file: no panic, and an accepted configuration listens beyond loopback only with TLS and
//! a token.
#![no_main]

use libfuzzer_sys::fuzz_target;
use minionsd::config::Config;

fuzz_target!(|text: &str| {
    if let Ok(config) = Config::parse(text) {
        let beyond = config.listen.is_some_and(|address| !address.ip().is_loopback());
        assert!(!beyond || (config.tls.is_some() && config.token_file.is_some()));
        assert!(config.listen.is_some() || config.unix_socket.is_some());
        assert!(!config.allowed_origins.iter().any(|origin| origin == "null" || origin == "*"));
    }
});
