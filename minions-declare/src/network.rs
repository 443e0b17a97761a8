//! Request for a VM's agent, from its effective configuration and leases.

use crate::address_pool::AddressPool;
use crate::effective::{Addressing, EffectiveConfig, LeaseNeed, interface_key};
use crate::state::Pools;
use minions_api::declaration::DeclaredInterface;
use minions_api::network::{InterfaceRequest, NetworkRequest};
use minions_proto::Invalid;
use minions_proto::message::ChangeNetwork;
use std::net::IpAddr;

/// Builds the request; `None` if there is nothing to configure. `leased` returns the address for each need for an address
/// of a pool.
///
/// # Errors
///
/// [`Invalid`] for the first field that contradicts another one, or that no guest can have.
pub fn network_request(
    config: &EffectiveConfig,
    pools: &Pools,
    leased: impl Fn(&LeaseNeed) -> Option<IpAddr>,
) -> Result<Option<NetworkRequest>, Invalid> {
    let mut builder = RequestBuilder { config, pools, leased, pool_dns: Vec::new() };
    let interfaces = builder.interfaces()?;
    let dns = config.dns.as_ref().map_or(builder.pool_dns, |field| field.value.clone());
    let mtu = config.mtu.as_ref().map(|field| field.value);
    let request = NetworkRequest {
        ip: None,
        gateway: None,
        interfaces,
        routes: config.routes.as_ref().map(|field| field.value.clone()),
        dns,
        search: config.search.as_ref().map(|field| field.value.clone()),
        mtu,
        hostname: config.hostname.as_ref().map(|field| field.value.clone()),
        verify: config.verify.as_ref().map(|field| field.value.clone()),
        confirm_within_ms: None,
        dry_run: None,
    };
    let settings = NetworkRequest { verify: None, ..request.clone() };
    if settings == NetworkRequest::default() {
        return Ok(None);
    }
    let change = ChangeNetwork::from(request.clone());
    match change.plan() {
        Ok(_) => Ok(Some(request)),
        Err(invalid) => Err(declared_field(config, &invalid)),
    }
}

struct RequestBuilder<'a, L> {
    config: &'a EffectiveConfig,
    pools: &'a Pools,
    leased: L,
    /// Name servers of the pools.
    pool_dns: Vec<String>,
}

impl<L: Fn(&LeaseNeed) -> Option<IpAddr>> RequestBuilder<'_, L> {
    fn interfaces(&mut self) -> Result<Vec<InterfaceRequest>, Invalid> {
        let Some(addressing) = self.config.addressing.as_ref().map(|field| &field.value) else {
            return Ok(Vec::new());
        };
        match addressing {
            Addressing::Pool(pool) => {
                let interface =
                    DeclaredInterface { pool: Some(pool.clone()), ..DeclaredInterface::default() };
                self.interface("network.pool", &interface).map(|one| vec![one])
            }
            Addressing::Fixed { ip, gateway } => Ok(vec![InterfaceRequest {
                addresses: Some(vec![ip.clone()]),
                gateways: gateway.iter().cloned().collect(),
                ..InterfaceRequest::default()
            }]),
            Addressing::Interfaces(interfaces) => {
                let all = interfaces.iter().enumerate();
                all.map(|(at, one)| self.interface(&format!("network.interfaces[{at}].pool"), one))
                    .collect()
            }
        }
    }

    fn interface(
        &mut self,
        pool_field: &str,
        declared: &DeclaredInterface,
    ) -> Result<InterfaceRequest, Invalid> {
        let DeclaredInterface { name, mac, pool, addresses, gateways, mtu } = declared.clone();
        let mut request = InterfaceRequest { name, mac, addresses, gateways, mtu };
        let Some(pool) = pool else { return Ok(request) };
        let known = self.pools.get(&pool).ok_or_else(|| no_pool(pool_field, &pool))?;
        let pool = &known.pool;
        let key = interface_key(declared);
        let need = LeaseNeed::Pool { interface: key, pool: pool.name().to_owned() };
        let address = (self.leased)(&need).ok_or_else(|| {
            Invalid::value(pool_field, pool.name(), "has no address for this VM yet")
        })?;
        request.addresses.get_or_insert_default().insert(0, pool.with_prefix(address));
        self.add_settings(pool, &mut request);
        Ok(request)
    }

    /// Adds the settings of the pool that the declaration does not have.
    fn add_settings(&mut self, pool: &AddressPool, request: &mut InterfaceRequest) {
        let of_family = |gateway: &String| {
            let address = gateway.parse::<IpAddr>();
            address
                .is_ok_and(|one| pool.gateway().is_some_and(|own| own.is_ipv4() == one.is_ipv4()))
        };
        if let Some(gateway) = pool.gateway()
            && !request.gateways.iter().any(of_family)
        {
            request.gateways.push(gateway.to_string());
        }
        if request.mtu.is_none() && self.config.mtu.is_none() {
            request.mtu = pool.declared().mtu;
        }
        for server in &pool.declared().dns {
            if !self.pool_dns.contains(server) {
                self.pool_dns.push(server.clone());
            }
        }
    }
}

/// Builds the error for a pool that does not exist.
pub(crate) fn no_pool(field: &str, pool: &str) -> Invalid {
    Invalid::value(
        field,
        pool,
        "no pool has this name: declare it under `pools`, or correct the name",
    )
}

/// Translates the field of a request to that of the declarations.
fn declared_field(config: &EffectiveConfig, invalid: &Invalid) -> Invalid {
    let addressing = config.addressing.as_ref().map(|field| &field.value);
    let field = match (invalid.field.strip_prefix("interfaces[0]."), addressing) {
        (Some(field), Some(Addressing::Fixed { .. })) if field.starts_with("addresses") => {
            "network.ip".to_owned()
        }
        (Some(field), Some(Addressing::Fixed { .. })) if field.starts_with("gateways") => {
            "network.gateway".to_owned()
        }
        (Some(_), Some(Addressing::Pool(_))) => "network.pool".to_owned(),
        _ if invalid.field == "hostname" => "hostname".to_owned(),
        _ => format!("network.{}", invalid.field),
    };
    Invalid::new(field, invalid.reason.clone())
}
