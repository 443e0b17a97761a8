//! Effective configuration of a VM: the declarations that match it, merged field by field.

use crate::declaration_set::DeclarationSet;
use minions_api::VmName;
use minions_api::declaration::{
    Declaration, DeclaredInterface, DeclaredNetwork, DeclaredRestore, DriftPolicy, FieldOrigin,
};
use minions_api::label::Labels;
use minions_api::network::{Check, RouteRequest};
use minions_proto::cidr::InterfaceAddress;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Value of a field, and the declaration that it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergedField<T> {
    /// The value.
    pub value: T,
    /// Name of the declaration.
    pub origin: String,
}

/// Addresses of a VM as declared. The three forms exclude each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Addressing {
    /// The first Ethernet interface gets an address of this pool.
    Pool(String),
    /// The first Ethernet interface has this address and gateway.
    Fixed {
        /// Address with prefix length.
        ip: String,
        /// Next hop of the default route.
        gateway: Option<String>,
    },
    /// Interfaces.
    Interfaces(Vec<DeclaredInterface>),
}

/// Need of a VM for an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeaseNeed {
    /// Any address of a pool.
    Pool {
        /// Interface as declared; empty for the first Ethernet interface.
        interface: String,
        /// Name of the pool.
        pool: String,
    },
    /// Certain address, from a declaration.
    Fixed {
        /// Interface as declared; empty for the first Ethernet interface.
        interface: String,
        /// The address.
        address: IpAddr,
    },
}

/// Effective configuration of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectiveConfig {
    /// The VM.
    pub vm: VmName,
    /// Names of the matching declarations, the most specific one first.
    pub declarations: Vec<String>,
    /// Labels by key.
    pub labels: BTreeMap<String, MergedField<String>>,
    /// Hostname, with the VM's name in place of `{vm}`.
    pub hostname: Option<MergedField<String>>,
    /// Reaction to drift.
    pub drift: Option<MergedField<DriftPolicy>>,
    /// Addresses.
    pub addressing: Option<MergedField<Addressing>>,
    /// Name servers.
    pub dns: Option<MergedField<Vec<String>>>,
    /// Routes.
    pub routes: Option<MergedField<Vec<RouteRequest>>>,
    /// Search domains.
    pub search: Option<MergedField<Vec<String>>>,
    /// MTU.
    pub mtu: Option<MergedField<u32>>,
    /// Checks after a change.
    pub verify: Option<MergedField<Vec<Check>>>,
    /// Clock offset above which the guest's clock is set, in milliseconds; 0: never.
    pub clock_limit_ms: Option<MergedField<u64>>,
    /// Restore steps.
    pub restore: Option<MergedField<Box<DeclaredRestore>>>,
    /// Highest revision of the declarations.
    pub revision: u64,
}

/// Returns the addresses that a network declares, if it declares any.
#[must_use]
pub fn addressing(network: &DeclaredNetwork) -> Option<Addressing> {
    if let Some(pool) = &network.pool {
        return Some(Addressing::Pool(pool.clone()));
    }
    if let Some(ip) = &network.ip {
        return Some(Addressing::Fixed { ip: ip.clone(), gateway: network.gateway.clone() });
    }
    let interfaces = &network.interfaces;
    (!interfaces.is_empty()).then(|| Addressing::Interfaces(interfaces.clone()))
}

/// Returns the interface's name or MAC address; empty for the first Ethernet interface.
#[must_use]
pub fn interface_key(interface: &DeclaredInterface) -> String {
    let key = interface.name.as_ref().or(interface.mac.as_ref());
    key.map(|key| key.to_ascii_lowercase()).unwrap_or_default()
}

impl Addressing {
    /// Returns the needs for addresses, in the order of the interfaces.
    #[must_use]
    pub fn needs(&self) -> Vec<LeaseNeed> {
        let fixed = |interface: &str, text: &String| {
            let address = InterfaceAddress::parse("ip", text).ok()?.address();
            Some(LeaseNeed::Fixed { interface: interface.to_owned(), address })
        };
        match self {
            Self::Pool(pool) => {
                vec![LeaseNeed::Pool { interface: String::new(), pool: pool.clone() }]
            }
            Self::Fixed { ip, .. } => fixed("", ip).into_iter().collect(),
            Self::Interfaces(interfaces) => {
                let needs = interfaces.iter().flat_map(|interface| {
                    let key = interface_key(interface);
                    let pool = interface.pool.as_ref();
                    let pool = pool
                        .map(|pool| LeaseNeed::Pool { interface: key.clone(), pool: pool.clone() });
                    let addresses = interface.addresses.iter().flatten();
                    let fixed: Vec<_> = addresses.filter_map(|text| fixed(&key, text)).collect();
                    pool.into_iter().chain(fixed)
                });
                needs.collect()
            }
        }
    }
}

impl EffectiveConfig {
    /// Returns the configuration of a VM that no declaration matches.
    pub(crate) fn none(vm: &VmName) -> Self {
        Self {
            vm: vm.clone(),
            declarations: Vec::new(),
            labels: BTreeMap::new(),
            hostname: None,
            drift: None,
            addressing: None,
            dns: None,
            routes: None,
            search: None,
            mtu: None,
            verify: None,
            clock_limit_ms: None,
            restore: None,
            revision: 0,
        }
    }

    /// Merges the declarations that match a VM: for each field, the most specific declaration that has it decides.
    #[must_use]
    pub fn of(vm: &VmName, declarations: &DeclarationSet) -> Self {
        let mut merged = Self::none(vm);
        for stored in declarations.matching(vm) {
            merged.declarations.push(stored.target.as_str().to_owned());
            merged.revision = merged.revision.max(stored.revision);
            merged.fill(stored.target.as_str(), &stored.declaration);
        }
        merged
    }

    /// Adds the fields that no more specific declaration has.
    pub(crate) fn fill(&mut self, name: &str, declaration: &Declaration) {
        let Declaration { name: _, labels, hostname, network, drift, clock_limit_ms, restore } =
            declaration;
        for (key, value) in labels {
            let field = || MergedField { value: value.clone(), origin: name.to_owned() };
            self.labels.entry(key.clone()).or_insert_with(field);
        }
        let hostname = hostname.as_ref().map(|name| name.replace("{vm}", self.vm.as_str()));
        fill(&mut self.hostname, name, hostname.as_ref());
        fill(&mut self.drift, name, drift.as_ref());
        fill(&mut self.clock_limit_ms, name, clock_limit_ms.as_ref());
        fill(&mut self.restore, name, restore.as_ref());
        let Some(network) = network else { return };
        fill(&mut self.addressing, name, addressing(network).as_ref());
        fill(&mut self.dns, name, network.dns.as_ref());
        fill(&mut self.routes, name, network.routes.as_ref());
        fill(&mut self.search, name, network.search.as_ref());
        fill(&mut self.mtu, name, network.mtu.as_ref());
        fill(&mut self.verify, name, network.verify.as_ref());
    }

    /// Returns the labels without their origins.
    #[must_use]
    pub fn plain_labels(&self) -> Labels {
        self.labels.iter().map(|(key, field)| (key.clone(), field.value.clone())).collect()
    }

    /// Returns the reaction to drift.
    #[must_use]
    pub fn drift_policy(&self) -> DriftPolicy {
        self.drift.as_ref().map(|field| field.value).unwrap_or_default()
    }

    /// Returns the needs for addresses.
    #[must_use]
    pub fn needs(&self) -> Vec<LeaseNeed> {
        self.addressing.as_ref().map(|field| field.value.needs()).unwrap_or_default()
    }

    /// Returns the origin of each field.
    #[must_use]
    pub fn origins(&self) -> Vec<FieldOrigin> {
        let labels = self.labels.iter();
        let labels = labels.map(|(key, field)| (format!("labels.{key}"), &field.origin));
        let addressing = self.addressing.as_ref().map(|field| {
            let key = match field.value {
                Addressing::Pool(_) => "network.pool",
                Addressing::Fixed { .. } => "network.ip",
                Addressing::Interfaces(_) => "network.interfaces",
            };
            (key.to_owned(), &field.origin)
        });
        fn named<'a, T>(
            key: &str,
            field: Option<&'a MergedField<T>>,
        ) -> Option<(String, &'a String)> {
            field.map(|field| (key.to_owned(), &field.origin))
        }
        let others = [
            named("hostname", self.hostname.as_ref()),
            named("drift", self.drift.as_ref()),
            named("clock_limit_ms", self.clock_limit_ms.as_ref()),
            named("restore", self.restore.as_ref()),
            addressing,
            named("network.dns", self.dns.as_ref()),
            named("network.routes", self.routes.as_ref()),
            named("network.search", self.search.as_ref()),
            named("network.mtu", self.mtu.as_ref()),
            named("network.verify", self.verify.as_ref()),
        ];
        let all = labels.chain(others.into_iter().flatten());
        all.map(|(field, from)| FieldOrigin { field, from: from.clone() }).collect()
    }
}

fn fill<T: Clone>(field: &mut Option<MergedField<T>>, origin: &str, value: Option<&T>) {
    if let (None, Some(value)) = (&field, value) {
        *field = Some(MergedField { value: value.clone(), origin: origin.to_owned() });
    }
}
