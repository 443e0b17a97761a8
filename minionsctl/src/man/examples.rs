//! Examples of commands whose help has none.

/// Command with its purpose.
type Example = (&'static str, &'static str);

/// Examples by the path of the command.
const EXAMPLES: &[(&str, &[Example])] = &[
    (
        "",
        &[
            ("minionsctl ls", "lists the VMs"),
            ("minionsctl exec -it web-1 bash", "runs a shell in a VM"),
            ("minionsctl cp app.conf web-1:/etc/", "copies a file into a VM"),
            (
                "minionsctl --host https://vm-host:7070 --token-file token ls",
                "uses the daemon of another host",
            ),
            (
                "minionsctl --socket /run/minions/web-1.vsock health",
                "asks an agent without minionsd",
            ),
            ("minionsctl -o json get web-1 | jq .state", "prints JSON for a program"),
        ],
    ),
    (
        "get",
        &[
            ("minionsctl get web-1", "prints the state of a VM, and the reason if it is not ready"),
            (
                "minionsctl -o json get web-1 | jq -r .incarnation.id",
                "prints the value for --incarnation",
            ),
        ],
    ),
    ("doctor", &[("minionsctl doctor web-1", "checks each layer, and prints what to do")]),
    (
        "health",
        &[
            ("minionsctl health web-1", "asks through minionsd"),
            ("minionsctl --socket /run/minions/web-1.vsock health", "asks the agent directly"),
        ],
    ),
    (
        "status",
        &[
            ("minionsctl status web-1", "prints uptime, memory, processors and disks"),
            ("minionsctl -o json status web-1 | jq .memory_used_mb", "prints one figure"),
        ],
    ),
    ("network", &[("minionsctl network web-1", "prints interfaces, routes and name servers")]),
    (
        "configure-network",
        &[
            (
                "minionsctl configure-network web-1 --ip 10.0.0.2/16 --gateway 10.0.0.1 --dns 1.1.1.1,9.9.9.9",
                "configures the first Ethernet interface",
            ),
            (
                "minionsctl configure-network web-1 --interface \"eth0 10.0.0.2/16 via 10.0.0.1\" --confirm-within 30s",
                "configures an interface; the change is undone after 30 seconds unless it is confirmed",
            ),
            (
                "minionsctl configure-network web-1 --dns 9.9.9.9 --dry-run",
                "only prints what would change",
            ),
            (
                "minionsctl configure-network web-1 -f network.json",
                "takes the whole request from a file",
            ),
        ],
    ),
    (
        "confirm-network",
        &[(
            "minionsctl confirm-network web-1 c-17",
            "confirms the change whose id `configure-network --confirm-within` printed",
        )],
    ),
    (
        "apply",
        &[
            ("minionsctl apply -f vms.yaml", "applies a file"),
            (
                "minionsctl apply -f declarations.d --prune",
                "applies a directory, and removes what is not in it",
            ),
            ("minionsctl apply -f - < vms.yaml", "applies YAML from standard input"),
        ],
    ),
    (
        "diff",
        &[
            ("minionsctl diff -f vms.yaml", "prints what `apply` would change"),
            ("minionsctl diff -f vms.yaml --prune || echo changes", "compares in a script"),
        ],
    ),
    (
        "config",
        &[
            (
                "minionsctl config web-1",
                "prints the configuration, and where each field comes from",
            ),
            (
                "minionsctl config web-1 --explain",
                "also prints the declarations that do not decide",
            ),
            ("minionsctl config web-1 --apply", "applies the configuration now"),
        ],
    ),
    ("declarations", &[("minionsctl declarations", "lists the declarations")]),
    (
        "pool",
        &[
            ("minionsctl pool ls", "lists the address pools"),
            ("minionsctl pool leases lan", "lists the leases of a pool"),
        ],
    ),
    ("pool ls", &[("minionsctl pool ls", "lists the pools with their leased and free addresses")]),
    (
        "pool leases",
        &[
            ("minionsctl pool leases lan", "lists the leases of a pool"),
            ("minionsctl pool leases --hosts >> /etc/hosts", "appends all leases to a hosts file"),
        ],
    ),
    (
        "pool reserve",
        &[
            ("minionsctl pool reserve lan 10.0.0.9", "keeps an address from all VMs"),
            ("minionsctl pool reserve lan --vm web-1", "reserves the next free address for a VM"),
        ],
    ),
    ("pool release", &[("minionsctl pool release lan 10.0.0.9", "ends a lease or a reservation")]),
    (
        "set-clock",
        &[
            ("minionsctl set-clock web-1", "sets the clock to the host's time"),
            ("minionsctl set-clock web-1 --time 2026-01-31T12:00:00Z", "sets another time"),
        ],
    ),
    (
        "restored",
        &[(
            "minionsctl restored web-1",
            "runs the restore steps after a restore that minionsd did not see",
        )],
    ),
    (
        "poweroff",
        &[
            ("minionsctl poweroff web-1 --wait", "returns when the guest has halted"),
            ("minionsctl poweroff web-1 --force", "does not wait for the guest's init"),
        ],
    ),
    (
        "reboot",
        &[
            (
                "minionsctl reboot web-1 --wait && minionsctl exec web-1 uptime",
                "runs a program in the new boot",
            ),
            (
                "minionsctl -o json reboot web-1 | jq -r .boot_id",
                "prints the boot that ends, for `wait --rebooted-since`",
            ),
        ],
    ),
    (
        "thaw",
        &[
            ("minionsctl thaw web-1", "ends a quiesce"),
            ("minionsctl thaw web-1 --id q-17", "ends only this quiesce"),
        ],
    ),
    (
        "watch",
        &[
            ("minionsctl watch", "prints the events of all VMs"),
            ("minionsctl -o json watch web-1", "prints one JSON object for each event of a VM"),
        ],
    ),
    (
        "fs",
        &[
            ("minionsctl fs ls web-1:/etc", "lists a directory"),
            (
                "minionsctl fs -u www-data cat web-1:/srv/index.html",
                "reads a file with the rights of a user",
            ),
        ],
    ),
    ("fs ls", &[("minionsctl fs ls web-1:/var/log", "lists a directory")]),
    ("fs cat", &[("minionsctl fs cat web-1:/etc/os-release", "prints a file")]),
    (
        "fs stat",
        &[("minionsctl fs stat -L web-1:/etc/localtime", "describes the target of a link")],
    ),
    (
        "fs mkdir",
        &[(
            "minionsctl fs mkdir -p -m 750 web-1:/srv/app/data",
            "creates a directory and its parents",
        )],
    ),
    (
        "fs mv",
        &[(
            "minionsctl fs mv -n web-1:/srv/new /srv/app",
            "renames a directory unless the name exists",
        )],
    ),
    (
        "fs rm",
        &[(
            "minionsctl fs rm -r web-1:/tmp/build web-1:/tmp/log",
            "removes a directory and a file",
        )],
    ),
    (
        "shell",
        &[
            ("minionsctl shell web-1", "runs bash, or sh if the guest has no bash"),
            ("minionsctl shell -u eve web-1", "runs it as another user"),
        ],
    ),
    (
        "logs",
        &[
            ("minionsctl logs web-1 job-17", "prints the output so far"),
            ("minionsctl logs -f -n 20 web-1 job-17", "prints the last 20 lines, and continues"),
        ],
    ),
    (
        "attach",
        &[
            ("minionsctl attach web-1 job-17", "re-attaches to a program"),
            ("minionsctl attach -i web-1 job-17 < input", "passes a file on as its input"),
        ],
    ),
    (
        "kill",
        &[
            ("minionsctl kill web-1 job-17", "sends SIGTERM"),
            ("minionsctl kill -9 web-1 job-17", "sends SIGKILL, in the form of kill(1)"),
            (
                "minionsctl kill --remove web-1 job-17",
                "ends the program with all its processes, and forgets it",
            ),
        ],
    ),
    (
        "ssh-proxy",
        &[
            (
                "ssh -o ProxyCommand='minionsctl ssh-proxy %h' web-1.minions",
                "connects with the system's ssh; `minionsctl ssh-config` prints all options",
            ),
            ("minionsctl ssh-proxy web-1", "serves SSH on standard input and output"),
        ],
    ),
    (
        "ssh-config",
        &[
            (
                "minionsctl ssh-config --install",
                "writes the options; afterwards: ssh web-1.minions",
            ),
            (
                "minionsctl ssh-config > minions.conf && ssh -F minions.conf web-1.minions",
                "uses them once",
            ),
        ],
    ),
    (
        "version",
        &[
            ("minionsctl version", "prints the versions of minionsctl, minionsd and the agents"),
            ("minionsctl version --client", "needs no daemon"),
        ],
    ),
    ("whoami", &[("minionsctl whoami", "prints who minionsd takes this caller for")]),
    (
        "context",
        &[
            (
                "minionsctl context add prod --host https://vm-host:7070 --token-file ~/.minions-token",
                "adds a context",
            ),
            ("minionsctl context use prod", "uses it for all later commands"),
            ("minionsctl --context prod ls", "uses it for one command"),
        ],
    ),
    (
        "context use",
        &[
            ("minionsctl context use prod", "for all later commands"),
            ("minionsctl context use default", "without a context again"),
        ],
    ),
    ("context ls", &[("minionsctl context ls", "lists the contexts; `*` marks the current one")]),
    ("context rm", &[("minionsctl context rm prod", "removes a context")]),
    ("context current", &[("minionsctl context current", "prints the name, or `default`")]),
];

/// Returns the paths of the commands in the table.
#[cfg(test)]
pub(super) fn paths() -> impl Iterator<Item = &'static str> {
    EXAMPLES.iter().map(|(path, _)| *path)
}

/// Returns the examples of a command.
pub(super) fn of(path: &str) -> &'static [Example] {
    EXAMPLES.iter().find(|(known, _)| *known == path).map_or(&[], |(_, examples)| examples)
}
