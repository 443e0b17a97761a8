//! `resolv.conf` in the locations used by images and containers, and the settings that a change keeps.

use crate::guest::Guest;
use minions_proto::ErrorCode;
use minions_proto::message::ConfigureNetwork;
use serde_json::{Value, json};

const SHOWN: &str = "stat -c '%a %u:%g %F' /etc/resolv.conf; cat /etc/resolv.conf";

/// Returns the lines without comments.
fn settings(guest: &Guest, path: &str) -> Vec<String> {
    let text = guest.sh(&format!("cat {path}"));
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

fn servers(servers: &[&str]) -> Value {
    json!({ "dns": servers, "search": null })
}

/// Returns a change that fails after the name servers were written.
fn wrong() -> Value {
    json!({ "dns": ["10.0.0.53"], "search": null, "verify": ["dns"] })
}

#[tokio::test]
async fn a_mount_point_is_overwritten_and_restored_in_place() {
    for (setup, read_only) in [("true", false), ("mount -o remount,ro /etc", true)] {
        let mount = format!(
            "mkdir /run/host; printf 'nameserver 9.9.9.9\\noptions rotate\\n' > /run/host/resolv.conf
            chmod 640 /run/host/resolv.conf; chown 1:2 /run/host/resolv.conf
            touch /etc/resolv.conf; mount --bind /run/host/resolv.conf /etc/resolv.conf; {setup}"
        );
        let guest = Guest::with(&mount, 0).await;
        let before = guest.sh(SHOWN);
        let error = guest.change(wrong()).await.unwrap_err();
        let (step, restored) = (error.step.as_deref(), error.restored);
        assert_eq!((step, restored), (Some("verify_dns"), Some(true)), "{read_only}: {error:?}");
        assert_eq!(guest.sh(SHOWN), before, "{read_only}");
        guest.change(servers(&["1.1.1.1"])).await.unwrap();
        assert_eq!(
            settings(&guest, "/run/host/resolv.conf"),
            ["nameserver 1.1.1.1", "options rotate"]
        );
        let same = guest.sh("stat -c '%a %u:%g' /run/host/resolv.conf");
        assert_eq!(same, "640 1:2\n", "{read_only}");
        let again = guest.change(servers(&["1.1.1.1"])).await.unwrap();
        assert_eq!(again.changed, Some(false), "{read_only}");
    }
}

#[tokio::test]
async fn a_link_out_of_a_read_only_etc_is_followed_to_the_file() {
    // To a file, to a missing file, to another link that can be replaced.
    for there in [
        "printf 'nameserver 9.9.9.9\\noptions rotate\\n' > /run/resolv.conf",
        "true",
        "ln -s /run/elsewhere /run/resolv.conf",
    ] {
        let setup =
            format!("{there}; ln -s ../run/resolv.conf /etc/resolv.conf; mount -o remount,ro /etc");
        let guest = Guest::with(&setup, 0).await;
        let shown =
            "readlink /run/resolv.conf || true; cat /run/resolv.conf 2>/dev/null || echo none";
        let before = guest.sh(&format!("ls -A /run | grep -v minions-agent; {shown}"));
        let error = guest.change(wrong()).await.unwrap_err();
        assert_eq!(error.restored, Some(true), "{there}: {error:?}");
        assert_eq!(
            guest.sh(&format!("ls -A /run | grep -v minions-agent; {shown}")),
            before,
            "{there}"
        );
        guest.change(servers(&["1.1.1.1"])).await.unwrap();
        assert_eq!(settings(&guest, "/etc/resolv.conf")[0], "nameserver 1.1.1.1", "{there}");
        assert_eq!(guest.sh("readlink /etc/resolv.conf"), "../run/resolv.conf\n", "{there}");
        assert_eq!(guest.sh("stat -c %F /run/resolv.conf"), "regular file\n", "{there}");
    }
}

#[tokio::test]
async fn the_error_for_an_unwritable_file_names_the_file_and_not_a_temporary_one() {
    for (setup, path) in [
        ("mount -o remount,ro /etc", "/etc/resolv.conf"),
        ("echo > /etc/resolv.conf; mount -o remount,ro /etc", "/etc/resolv.conf"),
        (
            "mkdir /run/ro; mount -t tmpfs tmpfs /run/ro; ln -s /run/ro/resolv.conf /etc/resolv.conf
            mount -o remount,ro /etc; mount -o remount,ro /run/ro",
            "/run/ro/resolv.conf",
        ),
    ] {
        let guest = Guest::with(setup, 0).await;
        let error = guest.change(servers(&["1.1.1.1"])).await.unwrap_err();
        let (step, restored) = (error.step.as_deref(), error.restored);
        assert_eq!((step, restored), (Some("dns"), Some(true)), "{setup}: {error:?}");
        let wanted = format!("cannot read or write {path}: Read-only file system (os error 30);");
        assert!(error.message.starts_with(&wanted), "{setup}: {error:?}");
        assert_eq!(error.errno, Some(30), "{setup}: {error:?}");
    }
}

#[tokio::test]
async fn settings_that_the_request_does_not_name_stay() {
    let setup = "printf '# by hand\\noptions timeout:1 attempts:2 rotate\\nsearch a.example\\n\
                 nameserver 9.9.9.9\\nsortlist 10.0.0.0/8\\n' > /etc/resolv.conf
        chmod 640 /etc/resolv.conf; chown 1:2 /etc/resolv.conf";
    let guest = Guest::with(setup, 0).await;
    let kept = ["options timeout:1 attempts:2 rotate", "sortlist 10.0.0.0/8"];
    let has = |settings: Vec<String>, own: &[&str]| {
        let expected: Vec<_> = own.iter().chain(&kept).map(|&line| line.to_owned()).collect();
        assert_eq!(settings, expected);
    };
    let changed = guest.change(servers(&["1.1.1.1"])).await.unwrap();
    let changes = serde_json::to_value(changed.changes.unwrap()).unwrap();
    let dns: Vec<_> = changes.as_array().unwrap().iter().map(|one| &one["what"]).collect();
    assert!(!dns.contains(&&json!("search")), "{changes:#}");
    has(settings(&guest, "/etc/resolv.conf"), &["search a.example", "nameserver 1.1.1.1"]);
    assert_eq!(guest.sh("stat -c '%a %u:%g' /etc/resolv.conf"), "640 1:2\n");
    // Search domains in the request replace the old ones; an empty list removes them.
    guest.change(json!({ "dns": ["1.1.1.1"], "search": ["b.example"] })).await.unwrap();
    has(settings(&guest, "/etc/resolv.conf"), &["search b.example", "nameserver 1.1.1.1"]);
    guest.change(json!({ "dns": ["1.1.1.1"], "search": [] })).await.unwrap();
    has(settings(&guest, "/etc/resolv.conf"), &["nameserver 1.1.1.1"]);
    assert_eq!(guest.change(servers(&["1.1.1.1"])).await.unwrap().changed, Some(false));
}

#[tokio::test]
async fn an_agent_that_cannot_keep_the_owner_writes_the_file_nevertheless() {
    let setup = "echo nameserver 9.9.9.9 > /etc/resolv.conf; chmod 644 /etc/resolv.conf
        chown 1:2 /etc/resolv.conf";
    let guest = Guest::with_flags(setup, 0, "--allow health,network").await;
    guest.change(servers(&["1.1.1.1"])).await.unwrap();
    assert_eq!(settings(&guest, "/etc/resolv.conf"), ["nameserver 1.1.1.1"]);
    assert_eq!(guest.sh("stat -c '%a %u:%g' /etc/resolv.conf"), "644 0:0\n");
}

#[tokio::test]
async fn options_of_network_manager_stay_too() {
    let setup = "mkdir /run/NetworkManager
        printf '# Generated by NetworkManager\\nnameserver 192.0.2.53\\noptions timeout:1 rotate\\n' \
            > /etc/resolv.conf";
    let guest = Guest::with(setup, 0).await;
    guest.change(servers(&["1.1.1.1"])).await.unwrap();
    let text = guest.sh("cat /run/NetworkManager/conf.d/zz-minions.conf");
    assert!(text.contains("\noptions=timeout:1,rotate\n"), "{text}");
}

#[tokio::test]
async fn a_link_local_server_gets_the_zone_of_the_only_interface() {
    let guest = Guest::with("", 0).await;
    let base = ConfigureNetwork {
        ip: "10.0.0.2/16".into(),
        gateway: "10.0.0.1".into(),
        dns: vec!["fe80::1".into()],
    };
    guest.agent.call(&base).await.unwrap();
    assert_eq!(settings(&guest, "/etc/resolv.conf"), ["nameserver fe80::1%eth0"]);
    assert_eq!(guest.agent.call(&base).await.unwrap().changed, Some(false));
    guest.change(servers(&["fe80::2", "fe80::3%peer0", "1.1.1.1"])).await.unwrap();
    let lines = ["nameserver fe80::2%eth0", "nameserver fe80::3%peer0", "nameserver 1.1.1.1"];
    assert_eq!(settings(&guest, "/etc/resolv.conf"), lines);
}

#[tokio::test]
async fn a_link_local_server_without_a_known_link_is_refused() {
    let both = json!([{ "name": "eth0" }, { "name": "peer0" }]);
    for (setup, change, field) in [
        ("", json!({ "interfaces": both, "dns": ["1.1.1.1", "fe80::1"] }), "dns[1]"),
        ("", json!({ "interfaces": [], "dns": ["fe80::1"] }), "dns[0]"),
        ("", servers(&["fe80::1%eth9"]), "dns[0]"),
        ("", servers(&["1.1.1.1%eth0"]), "dns[0]"),
        ("", servers(&["2001:db8::1%eth0"]), "dns[0]"),
        // NetworkManager would ignore the server.
        (
            "mkdir /run/NetworkManager; echo '# Generated by NetworkManager' > /etc/resolv.conf",
            servers(&["fe80::1"]),
            "dns[0]",
        ),
    ] {
        let guest = Guest::with(setup, 0).await;
        let error = guest.change(change.clone()).await.unwrap_err();
        assert_eq!(error.code, Some(ErrorCode::InvalidArgument), "{change}: {error:?}");
        assert_eq!(error.field.as_deref(), Some(field), "{change}: {error:?}");
    }
}
