//! Steps of a change, in the order that the kernel requires.

use super::address::{self, DuplicateDetection};
use super::checks::ChangeChecks;
use super::desired::{DesiredLink, DesiredNetwork};
use super::dns::SystemPaths;
use super::error::NetworkError;
use super::rtnl::Rtnl;
use super::snapshot::NetworkSnapshot;
use super::{ipv6, keep_off, link, route, verify};
use minions_proto::message::Check;
use rustix::system::sethostname;
use std::io;

/// Inputs of a change.
pub(super) struct ChangeSteps<'a> {
    pub(super) rtnl: &'a Rtnl,
    pub(super) checks: &'a ChangeChecks,
    pub(super) desired: &'a DesiredNetwork,
    pub(super) snapshot: &'a NetworkSnapshot,
    pub(super) system: &'a SystemPaths,
}

impl ChangeSteps<'_> {
    /// Applies the change if there are differences, and verifies the result. `step` is set to the step that is in
    /// progress. Returns warnings.
    pub(super) async fn run(
        &self,
        changed: bool,
        step: &mut &'static str,
    ) -> Result<Vec<String>, NetworkError> {
        let mut warnings = Vec::new();
        if changed {
            *step = "interface";
            warnings = keep_off::run(self.desired, self.snapshot, self.system).await;
            self.apply(step).await?;
        }
        for check in &self.checks.list {
            *step = verifying(*check);
            verify::check(self.rtnl, self.checks, *check).await?;
        }
        Ok(warnings)
    }

    async fn apply(&self, step: &mut &'static str) -> Result<(), NetworkError> {
        for one in &self.desired.links {
            self.interface(one).await?;
        }
        *step = "addresses";
        for one in &self.desired.links {
            self.addresses(one).await?;
        }
        *step = "routes";
        route::replace(self.rtnl, self.desired).await?;
        *step = "dns";
        self.dns().await?;
        *step = "hostname";
        if let Some(hostname) = &self.desired.hostname {
            let set = sethostname(hostname.as_bytes());
            set.map_err(|errno| NetworkError::Hostname(errno.into()))?;
        }
        Ok(())
    }

    async fn interface(&self, one: &DesiredLink) -> Result<(), NetworkError> {
        let link = &one.link;
        if one.addresses.is_some() && self.snapshot.accept_ra(link.index).is_some() {
            // Otherwise routers on the link would add their own addresses and default routes to those of the
            // host. Earlier ones are removed with the other old addresses.
            ipv6::set_accept_ra(&link.name, "0").map_err(NetworkError::Routers)?;
        }
        if let Some(mtu) = one.mtu.filter(|mtu| *mtu != link.mtu) {
            link::set_mtu(self.rtnl, link.index, mtu).await?;
        }
        if !link.up {
            link::set_up(self.rtnl, link.index, true).await?;
        }
        Ok(())
    }

    async fn addresses(&self, one: &DesiredLink) -> Result<(), NetworkError> {
        let Some(wanted) = &one.addresses else { return Ok(()) };
        let duplicates = if self.checks.list.contains(&Check::Addresses) {
            let present = self.snapshot.addresses_of(one.link.index);
            verify::no_duplicates(self.rtnl, one, &present).await?;
            DuplicateDetection::Detect
        } else {
            DuplicateDetection::Ignore
        };
        Ok(address::replace(self.rtnl, one.link.index, wanted, duplicates).await?)
    }

    /// Writes the configuration file of the service that manages the name servers.
    async fn dns(&self) -> Result<(), NetworkError> {
        let Some((owner, resolver)) = self.desired.dns.clone() else { return Ok(()) };
        let path = &self.desired.dns_file;
        let saved = self.snapshot.files.iter().find(|file| file.path == *path);
        if saved.is_some_and(|file| owner.holds(file, &resolver)) {
            return Ok(());
        }
        let system = self.system.clone();
        let path = path.clone();
        let written = crate::task::spawn_blocking(move || -> Result<(), NetworkError> {
            owner
                .write(&system, &resolver)
                .map_err(|source| NetworkError::File { path, source })?;
            owner.reload(&system).map_err(NetworkError::Reload)
        });
        written.await.unwrap_or_else(|error| Err(NetworkError::Reload(io::Error::other(error))))
    }
}

fn verifying(check: Check) -> &'static str {
    match check {
        Check::Link => "verify_link",
        Check::Addresses => "verify_addresses",
        Check::Route => "verify_route",
        Check::Gateway => "verify_gateway",
        Check::Dns => "verify_dns",
    }
}
