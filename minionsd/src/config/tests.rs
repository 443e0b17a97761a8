//! Merging and checking of settings.

use super::*;

fn load(flags: &[&str], file: &str) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("minionsd.toml");
    std::fs::write(&path, file).unwrap();
    let mut line = vec!["minionsd", "--config", path.to_str().unwrap()];
    line.extend(flags);
    Config::load(Args::parse_from(line))
}

#[test]
fn a_flag_beats_the_file_and_the_file_beats_the_default() {
    let file = "listen = '127.0.0.1:1'\nsocket_dir = '/file'\npool_size = 3";
    let config = load(&["--socket-dir", "/flag"], file).unwrap();
    assert_eq!(config.listen, "127.0.0.1:1".parse().ok());
    assert_eq!(config.socket_dir, Path::new("/flag"));
    assert_eq!((config.pool_size, config.log_format), (3, LogFormat::Text));
}

#[test]
fn errors_name_the_invalid_setting() {
    let error = |file: &str| format!("{:#}", anyhow::Error::from(load(&[], file).unwrap_err()));
    assert!(error("lisen = 'x'").contains("lisen"));
    assert!(error("listen = 'localhost'").contains("listen"));
    assert!(error("pool_size = 1").contains("pool_size"));
    assert!(error("listen = '0.0.0.0:7070'").contains("listen"));
    assert!(error("listen = '0.0.0.0:7070'\ntoken_file = '/t'").contains("tls_cert"));
    let tls = "listen = '0.0.0.0:7070'\ntls_cert = '/c'\ntls_key = '/k'";
    assert!(error(tls).contains("token_file"));
    assert!(error("tls_cert = '/c'").contains("tls_key"));
    for origin in ["null", "*", "https://dash.example/", "dash.example", "HTTP://a", "https://*.a"]
    {
        let file = format!("allowed_origins = ['https://ok.example', '{origin}']");
        assert!(error(&file).contains("allowed_origins[1]"), "{origin}");
    }
    for grace in ["0", "999", "3600001"] {
        let error = error(&format!("reattach_grace_ms = {grace}"));
        assert!(
            error.contains("reattach_grace_ms") && error.contains("1000 to 3600000"),
            "{error}"
        );
    }
    assert!(error("tcp_read = 'token'").contains("token_file"));
    assert!(error("tcp_operate = 'root'").contains("tcp_operate"));
    assert!(error("audit = 'required'").contains("audit_log"));
    assert!(error("listen = 'none'\nunix_socket = 'none'").contains("unix_socket"));
    let of_length = |len: usize| format!("unix_socket = '/{}'", "x".repeat(len - 1));
    let long = error(&of_length(108));
    assert!(long.contains("`unix_socket` has 108 bytes") && long.contains("107"), "{long}");
    assert!(load(&[], &of_length(107)).is_ok());
    let unknown = error("socket_owners = ['root', 'no such user']");
    assert!(unknown.contains("socket_owners[1]") && unknown.contains("no such user"));
}

#[test]
fn the_first_matching_entry_decides_on_which_port_an_agent_is_expected() {
    let file = "agent_port = 4000\n[[agent_ports]]\nvms = 'web-*'\nport = 2048\n\
                [[agent_ports]]\nvms = '*-1'\nport = 2049\n";
    let ports = |flags: &[&str], file: &str| {
        let ports = load(flags, file).unwrap().agent_ports;
        ["web-1", "db-1", "db-2"].map(|name| ports.of(&name.parse().unwrap()).get())
    };
    assert_eq!(ports(&[], ""), [1024; 3]);
    assert_eq!(ports(&[], file), [2048, 2049, 4000]);
    assert_eq!(ports(&["--agent-port", "5000"], file), [2048, 2049, 5000]);
}

#[test]
fn an_error_about_a_port_or_pattern_names_the_setting() {
    let error = |file: &str| load(&[], file).unwrap_err().to_string();
    for port in ["-1", "0", "4294967295", "4294967296"] {
        let expected = format!("`agent_port` is {port}: must be a VSOCK port, 1 to 4294967294");
        assert_eq!(error(&format!("agent_port = {port}")), expected);
    }
    let entry = |vms: &str, port: &str| {
        format!(
            "[[agent_ports]]\nvms = 'a'\nport = 1\n[[agent_ports]]\nvms = '{vms}'\nport = {port}"
        )
    };
    assert!(error(&entry("b", "0")).contains("`agent_ports[1].port` is 0"));
    assert!(error(&entry("b c", "2")).contains("`agent_ports[1].vms` is \"b c\""));
    assert!(error(&entry("", "2")).contains("agent_ports[1].vms"));
    let incomplete = load(&[], "[[agent_ports]]\nvms = 'a'").unwrap_err();
    assert!(format!("{:#}", anyhow::Error::from(incomplete)).contains("port"));
    let flag = Args::try_parse_from(["minionsd", "--agent-port", "0"]).unwrap_err().to_string();
    assert!(flag.contains("--agent-port") && flag.contains("1 to 4294967294"), "{flag}");
}

#[test]
fn with_tls_and_a_token_any_listen_address_is_accepted() {
    let file = "listen = '0.0.0.0:7070'\ntls_cert = '/c'\ntls_key = '/k'\ntoken_file = '/t'";
    assert!(load(&[], file).is_ok());
}

#[test]
fn by_default_local_users_read_over_tcp_and_only_the_token_operates() {
    let config = load(&[], "").unwrap();
    assert_eq!((config.tcp_read, config.tcp_operate), (TcpRead::Local, TcpOperate::Token));
    let file = "tcp_read = 'token'\ntcp_operate = 'uid'\ntoken_file = '/t'";
    let config = load(&[], file).unwrap();
    assert_eq!((config.tcp_read, config.tcp_operate), (TcpRead::Token, TcpOperate::Uid));
    let config = load(&["--tcp-read", "local", "--tcp-operate", "token"], file).unwrap();
    assert_eq!((config.tcp_read, config.tcp_operate), (TcpRead::Local, TcpOperate::Token));
}

#[test]
fn audit_defaults_to_required_if_it_has_a_file() {
    assert_eq!(load(&[], "").unwrap().audit, AuditRule::BestEffort);
    assert_eq!(load(&[], "audit_log = '/a'").unwrap().audit, AuditRule::Required);
    let file = "audit_log = '/a'\naudit = 'best-effort'";
    assert_eq!(load(&[], file).unwrap().audit, AuditRule::BestEffort);
    assert_eq!(load(&["--audit", "required"], file).unwrap().audit, AuditRule::Required);
}

#[test]
fn only_the_token_file_in_the_state_directory_is_created() {
    let merged = |file| {
        let args = Args::parse_from(["minionsd"]);
        let file = parse(Path::new("-"), file).unwrap();
        Config::merge(args, file, Some(Path::new("/state"))).unwrap().token_file
    };
    assert_eq!(merged(""), Some(TokenFile::Created("/state/token".into())));
    assert_eq!(merged("token_file = '/t'"), Some(TokenFile::Existing("/t".into())));
    assert_eq!(load(&[], "").unwrap().token_file, None);
}

#[test]
fn the_database_is_in_the_state_directory_or_where_the_setting_says() {
    let merged = |flags: &[&str], file, dir: Option<&str>| {
        let args = Args::parse_from([&["minionsd"], flags].concat());
        let file = parse(Path::new("-"), file).unwrap();
        Config::merge(args, file, dir.map(Path::new)).unwrap().state
    };
    assert_eq!(merged(&[], "", None), None);
    assert_eq!(merged(&[], "", Some("/state")), Some("/state/minionsd.db".into()));
    assert_eq!(merged(&[], "state = '/s'", Some("/state")), Some("/s".into()));
    assert_eq!(merged(&["--state", "none"], "state = '/s'", Some("/state")), None);
}

#[test]
fn none_disables_a_listener() {
    assert_eq!(load(&["--listen", "none"], "").unwrap().listen, None);
}

#[test]
fn the_clock_limit_is_one_second_and_zero_turns_it_off() {
    let limit = |file: &str| load(&[], file).unwrap().clock_limit;
    assert_eq!(limit(""), Some(Duration::from_secs(1)));
    assert_eq!(limit("clock_limit_ms = 250"), Some(Duration::from_millis(250)));
    assert_eq!(limit("clock_limit_ms = 0"), None);
    let error = load(&[], "clock_limit_ms = 99").unwrap_err().to_string();
    assert!(error.contains("clock_limit_ms") && error.contains("or 0"), "{error}");
}
