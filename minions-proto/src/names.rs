//! Rules for names in a network configuration.

use crate::error::Invalid;

/// Longest hostname of the kernel, in bytes (`__NEW_UTS_LEN`).
const MAX_HOSTNAME: usize = 64;

/// Longest domain name in DNS, in bytes, without the dot at its end.
const MAX_DOMAIN: usize = 253;

/// Longest label in DNS, in bytes.
const MAX_LABEL: usize = 63;

/// Longest alternative name of an interface, in bytes (`ALTIFNAMSIZ` minus the terminator). Primary
/// names have at most 15.
const MAX_INTERFACE_NAME: usize = 127;

/// Checks a hostname: labels of letters, digits and hyphens.
///
/// # Errors
///
/// [`Invalid`] for `field`.
pub fn check_hostname(field: &str, text: &str) -> Result<String, Invalid> {
    if text.len() > MAX_HOSTNAME {
        return Err(Invalid::new(field, format!("is longer than {MAX_HOSTNAME} bytes")));
    }
    if !text.split('.').all(|label| is_label(label, b"-")) {
        let reason = "must be letters, digits and inner hyphens, with dots between";
        return Err(Invalid::value(field, text, reason));
    }
    Ok(text.to_owned())
}

/// Checks a domain: as a hostname, but longer, and with underscores, which are common in domains.
/// Removes a dot at the end.
///
/// # Errors
///
/// [`Invalid`] for `field`.
pub fn check_domain(field: &str, text: &str) -> Result<String, Invalid> {
    let domain = text.strip_suffix('.').unwrap_or(text);
    if domain.len() > MAX_DOMAIN {
        return Err(Invalid::new(field, format!("is longer than {MAX_DOMAIN} bytes")));
    }
    if !domain.split('.').all(|label| is_label(label, b"-_")) {
        let reason = "must be letters, digits, underscores and inner hyphens, with dots between";
        return Err(Invalid::value(field, text, reason));
    }
    Ok(domain.to_owned())
}

fn is_label(label: &str, marks: &[u8]) -> bool {
    (1..=MAX_LABEL).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || marks.contains(&byte))
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Checks the primary or alternative name of an interface, by the kernel's rules; it must also be
/// printable.
///
/// # Errors
///
/// [`Invalid`] for `field`.
pub fn check_interface_name(field: &str, text: &str) -> Result<String, Invalid> {
    let fits = (1..=MAX_INTERFACE_NAME).contains(&text.len()) && text != "." && text != "..";
    if !fits || !text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':') {
        let reason = format!("must be an interface name of 1 to {MAX_INTERFACE_NAME} bytes");
        return Err(Invalid::value(field, text, &reason));
    }
    Ok(text.to_owned())
}

/// Parses a MAC address such as `52:54:00:12:34:56`.
///
/// # Errors
///
/// [`Invalid`] for `field`: another form, or an address that no single interface can have.
pub fn parse_mac(field: &str, text: &str) -> Result<[u8; 6], Invalid> {
    let invalid = |reason: &str| Invalid::value(field, text, reason);
    let form = "must be a MAC address such as 52:54:00:12:34:56";
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2).ok_or_else(|| invalid(form))?;
        if !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(invalid(form));
        }
        *byte = u8::from_str_radix(part, 16).map_err(|_| invalid(form))?;
    }
    if parts.next().is_some() {
        return Err(invalid(form));
    }
    if mac == [0; 6] || mac[0] & 1 == 1 {
        return Err(invalid("must be the unicast address of an interface"));
    }
    Ok(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_inject_text_into_a_file_are_rejected() {
        for text in ["", "a b", "a\nnameserver 6.6.6.6", "-a", "a-", "a..b", "ä", &"a".repeat(65)]
        {
            assert!(check_hostname("hostname", text).is_err(), "{text:?}");
        }
        for text in ["", ".", "a b", "a\noptions x", "~.", "a..b", "..", &"a".repeat(64)] {
            assert!(check_domain("search[0]", text).is_err(), "{text:?}");
        }
        for text in ["", ".", "..", "a/b", "eth0:1", "a b", &"a".repeat(128)] {
            assert!(check_interface_name("name", text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn common_names_are_accepted() {
        assert_eq!(check_hostname("hostname", "web-1.example").unwrap(), "web-1.example");
        assert_eq!(check_domain("search[0]", "_tcp.example.org.").unwrap(), "_tcp.example.org");
        for name in ["enp0s3", &"a".repeat(127)] {
            assert_eq!(check_interface_name("name", name).unwrap(), name);
        }
        assert_eq!(parse_mac("mac", "52:54:00:AB:cd:0f").unwrap(), [0x52, 0x54, 0, 0xab, 0xcd, 15]);
    }

    #[test]
    fn malformed_and_non_unicast_macs_are_rejected() {
        for text in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            "52:54:00:12:34:+6",
            "525400123456",
            "00:00:00:00:00:00",
            "ff:ff:ff:ff:ff:ff",
            "01:00:5e:00:00:01",
        ] {
            assert!(parse_mac("mac", text).is_err(), "{text}");
        }
    }
}
