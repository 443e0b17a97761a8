//! A `/run` that cannot be written. Only a change that waits for confirmation depends on it.

use crate::guest::Guest;
use minions_proto::ErrorCode;
use serde_json::json;

#[tokio::test]
async fn without_a_journal_a_change_is_applied_with_a_warning() {
    for broken in [
        // Full, read-only, or with a file in place of the directory.
        "mount -t tmpfs -o nr_inodes=4 tmpfs /run; touch /run/a /run/b /run/c",
        "mount -o remount,ro /run",
        "touch /run/minions-agent",
    ] {
        let guest = Guest::with("mkdir -p /etc/NetworkManager", 0).await;
        guest.sh(broken);
        let change = json!({ "dns": ["9.9.9.9"] });
        let changed = guest.change(change.clone()).await.unwrap();
        let warnings = changed.warnings.unwrap();
        assert!(warnings[0].contains("/run/minions-agent/network.json"), "{broken}: {warnings:?}");
        assert!(!warnings.iter().any(|one| one.contains(".tmp")), "{broken}: {warnings:?}");
        assert!(guest.sh("ip addr show eth0").contains("10.0.0.2/16"), "{broken}");
        assert!(guest.sh("cat /etc/resolv.conf").contains("nameserver 9.9.9.9"), "{broken}");
        // Nothing to change, so no journal is needed and there is no warning.
        let again = guest.change(change).await.unwrap();
        assert_eq!((again.changed, again.warnings), (Some(false), None), "{broken}");
    }
}

#[tokio::test]
async fn a_change_that_must_be_confirmed_is_refused_without_a_journal() {
    let guest = Guest::with("", 0).await;
    let before = guest.sh("ip addr show eth0");
    guest.sh("mount -o remount,ro /run");
    let error = guest.change(json!({ "confirm_within_ms": 60_000 })).await.unwrap_err();
    assert_eq!(error.code, Some(ErrorCode::NetworkFailed), "{error:?}");
    let (step, restored) = (error.step.as_deref(), error.restored);
    assert_eq!((step, restored), (Some("journal"), Some(true)), "{error:?}");
    for part in ["confirm_within_ms", "/run/minions-agent/network.json", "Read-only"] {
        assert!(error.message.contains(part), "{error:?}");
    }
    assert_eq!(guest.sh("ip addr show eth0"), before);
}
