//! Files, variables and exit codes of the commands.

/// Name and description.
type Item = (&'static str, &'static str);

/// Variables of all commands.
const VARIABLES: [Item; 8] = [
    ("MINIONS_HOST", "Address of minionsd, as `--host`."),
    ("MINIONS_CONTEXT", "Name of the context, as `--context`."),
    ("MINIONS_TOKEN_FILE", "File with the bearer token, as `--token-file`. Not with a context."),
    ("MINIONS_CA_FILE", "CA bundle, as `--ca-file`. Not with a context."),
    ("MINIONS_CERT_FILE", "Client certificate and key, as `--cert-file`. Not with a context."),
    ("MINIONS_AGENT_PORT", "The agent's VSOCK port, as `--port`; only with `--socket`."),
    ("XDG_CONFIG_HOME", "Directory of the user's settings, instead of ~/.config."),
    ("HOME", "Home directory, if XDG_CONFIG_HOME is not set."),
];

/// Files of all commands.
const FILES: [Item; 5] = [
    ("/run/minions/minionsd.sock", "Unix socket of minionsd, the default of `--host`."),
    (
        "~/.config/minions/config.toml",
        "Settings of the user: host, token_file, ca_file, cert_file, agent_port.",
    ),
    ("~/.config/minions/contexts.toml", "Contexts of the user, see minionsctl-context(1)."),
    ("/etc/minions/config.toml", "Settings of this host, with the same keys."),
    ("/run/minions/VM.vsock", "Socket of a VM, for `--socket`."),
];

/// Exit codes of commands that run no program.
const PLAIN: [Item; 3] = [
    ("0", "Success."),
    ("1", "Failure, or options that exclude each other; standard error has the reason."),
    ("2", "A command line that cannot be parsed."),
];

/// Exit codes of commands that end with the code of a program in a guest.
const PROGRAM: [Item; 6] = [
    ("0", "The program ended with 0. Never if the end of the program is unknown."),
    ("124", "The program reached its time limit."),
    (
        "125",
        "minions failed: the program could not be run, or its end is unknown; also wrong usage.",
    ),
    ("126, 127", "The program cannot be executed; there is no such program."),
    ("128+n", "The program was ended by signal n."),
    ("any other", "The program's own."),
];

/// Returns the variables that a command reads.
pub(super) fn variables(path: &str) -> Vec<Item> {
    let more: &[Item] = match path {
        "" | "completion" => &[(
            "MINIONSCTL_COMPLETE",
            "Name of the shell that asks for candidates. Only the scripts of minionsctl-completion(1) set it.",
        )],
        "exec" | "shell" | "attach" => {
            &[("TERM", "Type of the terminal, for a program with `-t`.")]
        }
        _ => &[],
    };
    VARIABLES.iter().chain(more).copied().collect()
}

/// Returns the files of a command.
pub(super) fn files(path: &str) -> Vec<Item> {
    let more: &[Item] = match path {
        "ssh" | "ssh-config" | "ssh-proxy" => &[
            (
                "~/.ssh/minions.conf",
                "Options for ssh, which `minionsctl ssh-config --install` writes.",
            ),
            ("~/.ssh/config", "Configuration of ssh, which includes them then."),
        ],
        "quiesce" | "thaw" => {
            &[("/etc/minions/freeze.d, /etc/minions/thaw.d", "Hooks in the guest.")]
        }
        "restored" => &[("/etc/minions/restore.d", "Hooks in the guest.")],
        _ => &[],
    };
    FILES.iter().chain(more).copied().collect()
}

/// Returns the exit codes of a command.
pub(super) fn exit_codes(path: &str) -> Vec<Item> {
    let failure = |text: &'static str| vec![PLAIN[0], ("1", text), PLAIN[2]];
    match path {
        "exec" | "shell" | "attach" => PROGRAM.to_vec(),
        "ssh" | "quiesce" => Vec::new(),
        "ssh-proxy" => vec![PLAIN[0], PROGRAM[2]],
        "wait" => {
            let of_vm = failure("The VM is not in that state at the end of `--timeout`, or another failure.");
            let of_program = ("any other", "With ID: the program's own, as for minionsctl-exec(1).");
            let unknown = ("125", "With ID: the program still runs, or its end is unknown.");
            of_vm.into_iter().chain([unknown, of_program]).collect()
        }
        "diff" => failure("`apply` would change something, or a failure; standard error has the reason of a failure."),
        "config" => failure("The configuration is not applied after `--apply`, or a failure."),
        "doctor" => failure("A layer is broken, or a failure."),
        "ps" => failure("A VM that is ready does not answer, or a failure."),
        "cp" => failure("A file could not be copied. Standard error names it, and the others are copied."),
        "restored" => PLAIN.into_iter().chain([("125", "A required step failed.")]).collect(),
        "poweroff" | "reboot" => failure("It has not happened at the end of `--timeout` with `--wait`, or a failure."),
        "" => PLAIN
            .into_iter()
            .chain([(
                "any other",
                "Of commands that run a program or wait for one: its own code, 128+n after signal n, 124 at its time \
                 limit, 126 or 127 if it cannot be executed, 125 if minions failed.",
            )])
            .collect(),
        _ => PLAIN.to_vec(),
    }
}
