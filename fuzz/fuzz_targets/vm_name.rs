//! Any text as a VM name: an accepted name needs no escaping in a path, a URL, a header or a terminal.
#![no_main]

use libfuzzer_sys::fuzz_target;
use minions_api::VmName;

fuzz_target!(|text: &str| {
    if let Ok(name) = text.parse::<VmName>() {
        assert_eq!(name.to_string(), text);
        assert!((1..=63).contains(&text.len()) && !text.starts_with('.'));
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        assert!(text.bytes().all(plain), "{text:?}");
    }
});
