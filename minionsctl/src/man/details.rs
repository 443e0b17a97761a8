//! Descriptions beyond the first sentence of the help.

/// Paragraphs by the path of the command.
const DETAILS: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "minionsctl is the command line of minionsd(8), the daemon that reaches the agents of this host's microVMs \
             over VSOCK. A guest needs no network. `VM` is the name of a VM: its socket is `/run/minions/VM.vsock`.",
            "minionsctl connects to the Unix socket of minionsd if this user may connect to it (root, members of the \
             group minions), otherwise to `http://127.0.0.1:7070`, where every local user reads. To operate over TCP, \
             give the bearer token with `--token-file`. The address is the first of these: `--host`, `--context`, \
             `MINIONS_HOST`, the context in `MINIONS_CONTEXT`, the current context, the configuration files, the \
             default.",
            "Standard error has one sentence with the reason of a failure (`error:`), what to do (`hint:`), and for \
             failures of minionsd the id with which its log has more (`request id:`). With `-o json`, it has one JSON \
             object for each failure instead.",
        ],
    ),
    ("get", &["minionsd answers from its registry, without a call to the guest."]),
    (
        "doctor",
        &[
            "The layers are: minionsd, the socket, the VMM, CONNECT, the agent, its version, the clock, the network, \
             DNS. Another service on the agent's port is identified by the first bytes that it sends.",
        ],
    ),
    (
        "configure-network",
        &[
            "The change is applied completely or not at all. Conditions in `--verify` are checked afterwards; if one \
             does not hold, everything is rolled back. With `--confirm-within`, everything is rolled back unless \
         minionsctl-confirm-network(1) comes first, so that a mistake cannot disconnect the guest for good.",
            "An agent without the feature network2 accepts `--ip`, `--gateway` and `--dns` only.",
        ],
    ),
    (
        "apply",
        &[
            "The files are applied together, or not at all. minionsd stores the declarations, and configures each VM \
             that has one as soon as the VM is ready.",
        ],
    ),
    (
        "poweroff",
        &[
            "The command returns when the agent has accepted the request. If the VMM does not end with the guest, as \
         Firecracker does not, the command prints how to end it.",
        ],
    ),
    (
        "reboot",
        &[
            "The command returns when the agent has accepted the request; the old boot still answers then.",
        ],
    ),
    ("watch", &["A daemon that is away for up to 60 seconds is waited for."]),
    (
        "forward",
        &[
            "Each client that connects to an address here is connected to the target in the guest, and with `-R` the \
             other way round. If the target refuses a connection, or does not accept it within 10 seconds, the \
             client's connection is reset, and the reason is printed. After a restart of the guest, of its agent or of \
             minionsd, new connections work again.",
        ],
    ),
    (
        "cp",
        &[
            "A tree of a guest is not trusted: no file is created outside of the destination, links in the tree are \
             not followed, and device files are left out. The size is not limited: use `--timeout` or a quota. With \
             `-o json`, standard output has one object for each source and VM.",
        ],
    ),
    (
        "exec",
        &[
            "Output is passed on byte for byte. At the start of a line in a terminal, `~.` disconnects, and `~?` \
             prints help. A program survives a restart of minionsd: minionsctl re-attaches, and continues at the byte \
             where it was.",
            "With `-o json`, the collected result is printed as one JSON object.",
        ],
    ),
    (
        "ps",
        &[
            "Without VM, VMs that are not ready are reported on standard error. `lost` is a program whose agent was \
             killed: it may still run, and can be ended with minionsctl-kill(1).",
        ],
    ),
    (
        "logs",
        &[
            "The output is kept without timestamps, and up to a limit: what was lost is reported as a gap.",
        ],
    ),
    (
        "ssh-config",
        &["The options let ssh, scp, sftp, rsync and git reach a VM by the host name VM.minions."],
    ),
    (
        "ssh-proxy",
        &[
            "SFTP, and connections to and from ports of the guest, need minionsd: not with `--socket`.",
        ],
    ),
    (
        "restored",
        &[
            "minionsd recognizes most restores by itself. The steps give the guest a new identity: entropy, clock, \
             hostname, machine id, SSH host keys, network and hooks, as configured for minionsd(8).",
        ],
    ),
    (
        "context",
        &[
            "A context is a name for an address of minionsd and for the files with the credentials for it. A context \
             excludes the settings of the configuration files, so that their token is not sent to another host.",
        ],
    ),
];

/// Returns the paths of the commands in the table.
#[cfg(test)]
pub(super) fn paths() -> impl Iterator<Item = &'static str> {
    DETAILS.iter().map(|(path, _)| *path)
}

/// Returns the paragraphs of a command.
pub(super) fn of(path: &str) -> &'static [&'static str] {
    DETAILS.iter().find(|(known, _)| *known == path).map_or(&[], |(_, paragraphs)| paragraphs)
}
