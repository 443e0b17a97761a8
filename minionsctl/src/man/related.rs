//! Pages that a page refers to.

/// Commands whose pages refer to each other.
const GROUPS: [&[&str]; 10] = [
    &["exec", "shell", "ps", "logs", "attach", "kill", "wait"],
    &["ssh", "ssh-proxy", "ssh-config", "shell", "forward"],
    &["cp", "fs", "fs ls", "fs cat", "fs stat", "fs mkdir", "fs mv", "fs rm"],
    &["network", "configure-network", "confirm-network"],
    &[
        "apply",
        "diff",
        "config",
        "declarations",
        "pool",
        "pool ls",
        "pool leases",
        "pool reserve",
        "pool release",
    ],
    &["ls", "get", "doctor", "wait", "watch", "health", "status"],
    &["poweroff", "reboot", "wait", "doctor"],
    &["quiesce", "thaw", "restored", "set-clock"],
    &[
        "context",
        "context add",
        "context use",
        "context ls",
        "context rm",
        "context current",
        "whoami",
    ],
    &["version", "whoami", "completion"],
];

/// Returns the pages that the page of a command refers to, sorted.
pub(super) fn of(path: &str) -> Vec<String> {
    let same_group =
        GROUPS.iter().filter(|group| group.contains(&path)).flat_map(|group| group.iter());
    let mut names: Vec<_> =
        same_group.filter(|other| **other != path).map(|path| super::page_name(path)).collect();
    if path.is_empty() {
        names.extend(["minionsctl-completion", "minionsctl-context"].map(str::to_owned));
    } else {
        names.push("minionsctl".into());
    }
    names.sort();
    names.dedup();
    let mut pages: Vec<_> = names.into_iter().map(|name| format!("{name}(1)")).collect();
    pages.extend(["minionsd(8)", "minions-agent(8)"].map(str::to_owned));
    pages
}
