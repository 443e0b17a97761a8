//! Restore steps, by the names of their VMs.

use super::error::ConfigError;
use super::{CLOCK_LIMITS, CLOCK_LIMITS_TEXT};
use minions_api::VmName;
use minions_api::VmPattern;
use minions_api::declaration::DeclaredRestore;
use minions_api::network::NetworkRequest;
use minions_proto::message::{ChangeNetwork, MAX_HOOK_TIMEOUT_MS, RestoreStepKind};
use serde::Deserialize;
use std::ops::RangeInclusive;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// Part of a hostname template that stands for the name of the VM.
const VM_PLACEHOLDER: &str = "{vm}";

/// Longest template of a hostname, in bytes.
const MAX_TEMPLATE: usize = 64;

/// Allowed values of `steps_timeout_ms`.
const STEPS_TIMEOUTS: RangeInclusive<u64> = 1000..=86_400_000;

/// Time for the steps that take no longer than a second, and for the thaw hooks of a guest that was saved while it was
/// quiesced: they have 65 s.
const STEPS_TIME: Duration = Duration::from_mins(2);

/// Time for the step `ssh_host_keys`: the agent has 60 s for each of four keys.
const KEYS_TIME: Duration = Duration::from_mins(5);

/// Time for the step `network`: it waits for a DHCP server, or for services of the guest.
const NETWORK_TIME: Duration = Duration::from_mins(2);

/// Limits of the agent for hooks: number, default time limit, and time for one to be ended.
const MAX_HOOKS: u32 = 32;
const HOOK_TIMEOUT: Duration = Duration::from_secs(30);
const HOOK_END: Duration = Duration::from_secs(10);

/// Restore steps of all VMs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoreRules(pub Vec<RestoreRule>);

/// Restore steps of some VMs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreRule {
    /// Names of the VMs.
    pub vms: VmPattern,
    /// Their steps.
    pub policy: Arc<RestorePolicy>,
}

/// Restore steps of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestorePolicy {
    /// Steps to run.
    pub steps: Vec<RestoreStepKind>,
    /// Steps without which the VM does not become ready.
    pub required: Vec<RestoreStepKind>,
    /// Template of the hostname.
    pub hostname: String,
    /// Network of the guest. `None`: the last one that a client of this daemon has set.
    pub network: Option<ChangeNetwork>,
    /// Time limit of each hook. `None`: the agent's.
    pub hook_timeout: Option<Duration>,
    /// Time after which steps that still run count as failed. `None`: the time that the steps may take.
    pub steps_timeout: Option<Duration>,
    /// Clock offset above which the guest's clock is set.
    pub clock_limit: ClockLimit,
}

/// Clock offset above which a guest's clock is set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ClockLimit {
    /// Limit of all VMs without one of their own.
    #[default]
    Global,
    /// Clock that is never set outside a restore.
    Off,
    /// Own limit.
    Above(Duration),
}

impl ClockLimit {
    /// Returns the limit, where `global` is that of all VMs; `None` to never set the clock.
    #[must_use]
    pub fn or_global(self, global: Option<Duration>) -> Option<Duration> {
        match self {
            Self::Global => global,
            Self::Off => None,
            Self::Above(limit) => Some(limit),
        }
    }
}

impl Default for RestorePolicy {
    fn default() -> Self {
        Self {
            steps: vec![RestoreStepKind::Entropy, RestoreStepKind::Clock],
            required: Vec::new(),
            hostname: VM_PLACEHOLDER.to_owned(),
            network: None,
            hook_timeout: None,
            steps_timeout: None,
            clock_limit: ClockLimit::Global,
        }
    }
}

impl RestorePolicy {
    /// Converts the steps of a declaration.
    ///
    /// # Errors
    ///
    /// Never for a declaration in the store, which was checked by the same rules.
    pub(crate) fn declared(restore: &DeclaredRestore) -> Result<Self, ConfigError> {
        let DeclaredRestore { steps, required, hostname, network, hook_timeout_ms } =
            restore.clone();
        let vms = "*".to_owned();
        let entry = RestoreEntry {
            vms,
            steps,
            required,
            hostname,
            network,
            hook_timeout_ms,
            ..RestoreEntry::default()
        };
        entry.rule(0).map(|rule| Arc::unwrap_or_clone(rule.policy))
    }

    /// Returns the hostname of `vm`.
    #[must_use]
    pub fn hostname_of(&self, vm: &VmName) -> String {
        self.hostname.replace(VM_PLACEHOLDER, vm.as_str())
    }

    /// Returns the time after which steps that still run count as failed.
    #[must_use]
    pub fn steps_limit(&self) -> Duration {
        if let Some(limit) = self.steps_timeout {
            return limit;
        }
        let hook = self.hook_timeout.unwrap_or(HOOK_TIMEOUT) + HOOK_END;
        let times = [
            (RestoreStepKind::SshHostKeys, KEYS_TIME),
            (RestoreStepKind::Network, NETWORK_TIME),
            (RestoreStepKind::Hooks, MAX_HOOKS * hook),
        ];
        let taken = times.iter().filter(|(step, _)| self.steps.contains(step));
        STEPS_TIME + taken.map(|(_, time)| *time).sum::<Duration>()
    }
}

impl RestoreRules {
    /// Returns the policy for `vm`: that of the first rule that matches.
    #[must_use]
    pub fn of(&self, vm: &VmName) -> Arc<RestorePolicy> {
        // One for all: a daemon has thousands of VMs, and often no rule.
        static DEFAULT: LazyLock<Arc<RestorePolicy>> = LazyLock::new(Arc::default);
        let rule = self.0.iter().find(|rule| rule.vms.matches(vm));
        Arc::clone(rule.map_or(&*DEFAULT, |rule| &rule.policy))
    }

    /// Checks the entries of the file.
    pub(super) fn parse(entries: Vec<RestoreEntry>) -> Result<Self, ConfigError> {
        let rules = entries.into_iter().enumerate().map(|(index, entry)| entry.rule(index));
        rules.collect::<Result<_, _>>().map(Self)
    }
}

/// Entry of `restore` in the file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RestoreEntry {
    vms: String,
    steps: Option<Vec<String>>,
    #[serde(default)]
    required: Vec<String>,
    hostname: Option<String>,
    network: Option<NetworkRequest>,
    hook_timeout_ms: Option<u64>,
    steps_timeout_ms: Option<u64>,
    clock_limit_ms: Option<u64>,
}

impl RestoreEntry {
    fn rule(self, index: usize) -> Result<RestoreRule, ConfigError> {
        let field = |name: &str| format!("restore[{index}].{name}");
        let vms = self.vms.parse().map_err(|source| ConfigError::InvalidPattern {
            field: field("vms"),
            pattern: self.vms.clone(),
            source,
        })?;
        let defaults = RestorePolicy::default();
        let steps = match self.steps {
            Some(names) => parse_steps(&field("steps"), &names)?,
            None => defaults.steps,
        };
        let required = parse_steps(&field("required"), &self.required)?;
        if let Some(step) = required.iter().find(|step| !steps.contains(step)) {
            let reason = format!("names {step}, which is not in `steps`");
            return Err(ConfigError::InvalidRestore { field: field("required"), reason });
        }
        let hostname = self.hostname.unwrap_or(defaults.hostname);
        check_template(&field("hostname"), &hostname)?;
        let network = self.network.map(ChangeNetwork::from);
        if let Some(network) = &network {
            check_network(&field("network"), network)?;
        }
        let hook_timeout = self.hook_timeout_ms;
        check_range(&field("hook_timeout_ms"), hook_timeout, &(1..=MAX_HOOK_TIMEOUT_MS))?;
        check_range(&field("steps_timeout_ms"), self.steps_timeout_ms, &STEPS_TIMEOUTS)?;
        let policy = RestorePolicy {
            steps,
            required,
            hostname,
            network,
            hook_timeout: hook_timeout.map(Duration::from_millis),
            steps_timeout: self.steps_timeout_ms.map(Duration::from_millis),
            clock_limit: clock_limit(&field("clock_limit_ms"), self.clock_limit_ms)?,
        };
        Ok(RestoreRule { vms, policy: Arc::new(policy) })
    }
}

fn parse_steps(field: &str, names: &[String]) -> Result<Vec<RestoreStepKind>, ConfigError> {
    let parse = |(index, name): (usize, &String)| {
        name.parse().map_err(|invalid: minions_proto::Invalid| ConfigError::InvalidRestore {
            field: format!("{field}[{index}]"),
            reason: invalid.reason,
        })
    };
    let mut steps = names.iter().enumerate().map(parse).collect::<Result<Vec<_>, _>>()?;
    steps.sort_unstable();
    steps.dedup();
    Ok(steps)
}

fn check_range(
    field: &str,
    ms: Option<u64>,
    allowed: &RangeInclusive<u64>,
) -> Result<(), ConfigError> {
    let Some(ms) = ms.filter(|ms| !allowed.contains(ms)) else { return Ok(()) };
    let reason = format!("is {ms}: must be {} to {}", allowed.start(), allowed.end());
    Err(ConfigError::InvalidRestore { field: field.to_owned(), reason })
}

fn clock_limit(field: &str, ms: Option<u64>) -> Result<ClockLimit, ConfigError> {
    match ms {
        None => Ok(ClockLimit::Global),
        Some(0) => Ok(ClockLimit::Off),
        Some(ms) if CLOCK_LIMITS.contains(&Duration::from_millis(ms)) => {
            Ok(ClockLimit::Above(Duration::from_millis(ms)))
        }
        Some(ms) => {
            let reason = format!("is {ms}: must be {CLOCK_LIMITS_TEXT}");
            Err(ConfigError::InvalidRestore { field: field.to_owned(), reason })
        }
    }
}

fn check_template(field: &str, template: &str) -> Result<(), ConfigError> {
    let rest = template.replace(VM_PLACEHOLDER, "");
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if (1..=MAX_TEMPLATE).contains(&template.len()) && rest.bytes().all(is_allowed) {
        return Ok(());
    }
    let reason = format!(
        "is {template:?}: must be 1 to {MAX_TEMPLATE} of A-Z a-z 0-9 . _ - and {VM_PLACEHOLDER} for the VM's name"
    );
    Err(ConfigError::InvalidRestore { field: field.to_owned(), reason })
}

fn check_network(field: &str, network: &ChangeNetwork) -> Result<(), ConfigError> {
    let invalid = |name: &str, reason: &str| ConfigError::InvalidRestore {
        field: format!("{field}.{name}"),
        reason: reason.to_owned(),
    };
    let never = [
        ("confirm_within_ms", network.confirm_within_ms.is_some()),
        ("dry_run", network.dry_run.is_some()),
    ];
    if let Some((name, _)) = never.into_iter().find(|(_, given)| *given) {
        return Err(invalid(name, "must be absent: a restore cannot be confirmed"));
    }
    network.plan().map(drop).map_err(|error| invalid(&error.field, &error.reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn rules(file: &str) -> RestoreRules {
        Config::parse(file).unwrap().restore
    }

    #[test]
    fn entropy_and_clock_are_the_default_and_the_first_matching_rule_decides() {
        let web: VmName = "web-1".parse().unwrap();
        assert_eq!(*rules("").of(&web), RestorePolicy::default());
        let file = "[[restore]]\nvms = 'web-*'\nsteps = ['hooks', 'entropy', 'hostname', 'hooks']\n\
                    required = ['entropy']\nhostname = '{vm}.example'\nhook_timeout_ms = 5000\n\
                    [restore.network]\nip = '10.0.0.2/24'\ngateway = '10.0.0.1'\n\
                    [[restore]]\nvms = '*'\nsteps = []\n";
        let policy = rules(file).of(&web);
        use RestoreStepKind::{Entropy, Hooks, Hostname};
        assert_eq!(policy.steps, [Entropy, Hostname, Hooks]);
        assert_eq!(policy.required, [Entropy]);
        assert_eq!(policy.hostname_of(&web), "web-1.example");
        assert_eq!(policy.hook_timeout, Some(Duration::from_secs(5)));
        assert_eq!(policy.network.as_ref().unwrap().ip.as_deref(), Some("10.0.0.2/24"));
        assert!(rules(file).of(&"db".parse().unwrap()).steps.is_empty());
    }

    #[test]
    fn the_clock_limit_of_a_rule_replaces_the_one_of_all_vms() {
        let limit = |file: &str| {
            let config = Config::parse(&format!("clock_limit_ms = 250\n{file}")).unwrap();
            let own = config.restore.of(&"web-1".parse().unwrap()).clock_limit;
            own.or_global(config.clock_limit).map(|limit| limit.as_millis())
        };
        assert_eq!(limit(""), Some(250));
        assert_eq!(limit("[[restore]]\nvms = 'web-*'\n"), Some(250));
        assert_eq!(limit("[[restore]]\nvms = 'web-*'\nclock_limit_ms = 5000"), Some(5000));
        assert_eq!(limit("[[restore]]\nvms = 'web-*'\nclock_limit_ms = 0"), None);
        assert_eq!(limit("[[restore]]\nvms = 'db'\nclock_limit_ms = 0"), Some(250));
    }

    #[test]
    fn steps_have_the_time_that_they_may_take() {
        use RestoreStepKind::{Clock, Entropy, Hooks};
        let limit = |steps: &[RestoreStepKind], hook_timeout, steps_timeout| {
            let steps = steps.to_vec();
            RestorePolicy { steps, hook_timeout, steps_timeout, ..RestorePolicy::default() }
                .steps_limit()
        };
        let second = Some(Duration::from_secs(1));
        assert_eq!(limit(&[Entropy, Clock], None, None), Duration::from_mins(2));
        assert_eq!(limit(&[Hooks], None, None), Duration::from_secs(120 + 32 * 40));
        assert_eq!(limit(&[Hooks], second, None), Duration::from_secs(120 + 32 * 11));
        assert_eq!(limit(&[Hooks], None, second), Duration::from_secs(1));
        let file = rules("[[restore]]\nvms = '*'\nsteps_timeout_ms = 1500");
        let policy = file.of(&"web".parse().unwrap());
        assert_eq!(policy.steps_limit(), Duration::from_millis(1500));
    }

    #[test]
    fn an_invalid_rule_is_named_with_its_field() {
        let error =
            |text: &str| Config::parse(&format!("[[restore]]\n{text}")).unwrap_err().to_string();
        for (text, field) in [
            ("vms = ''", "`restore[0].vms`"),
            ("vms = '*'\nsteps = ['entropy', 'coffee']", "`restore[0].steps[1]`"),
            ("vms = '*'\nrequired = ['hooks']", "`restore[0].required`"),
            ("vms = '*'\nhostname = 'a b'", "`restore[0].hostname`"),
            ("vms = '*'\nhook_timeout_ms = 0", "`restore[0].hook_timeout_ms`"),
            ("vms = '*'\nsteps_timeout_ms = 999", "`restore[0].steps_timeout_ms`"),
            ("vms = '*'\nclock_limit_ms = 99", "`restore[0].clock_limit_ms`"),
            ("vms = '*'\nnetwork = { ip = '10.0.0.2/24' }", "`restore[0].network.gateway`"),
            (
                "vms = '*'\nnetwork = { dns = ['1.1.1.1'], dry_run = true }",
                "`restore[0].network.dry_run`",
            ),
        ] {
            assert!(error(text).contains(field), "{text}: {}", error(text));
        }
    }
}
