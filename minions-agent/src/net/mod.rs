//! The guest's network, over netlink.
//!
//! ```text
//!  plan (checked) ─▶ link: choose, no routers, up ─▶ address: replace ─▶ route: replace ─▶ resolv: replace
//! ```
//!
//! Each step makes its part of the kernel's state what the plan says, whatever it was before: doing
//! it twice is doing it once. One configuration at a time.

mod address;
pub(crate) mod interfaces;
mod link;
mod resolv;
mod route;
mod rtnl;

use minions_proto::message::NetworkPlan;
use rtnl::{Rtnl, StepError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Mutex;

/// Why the network is not as it was asked for. The steps before the failed one have been done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkError {
    #[error("netlink isn't available")]
    Open(#[source] io::Error),
    #[error("this guest has no Ethernet interface")]
    NoInterface,
    #[error("router advertisements can't be turned off")]
    Routers(#[source] io::Error),
    #[error(transparent)]
    Step(#[from] StepError),
    #[error("{} can't be written", .path.display())]
    Resolv { path: PathBuf, source: io::Error },
    #[error("the configuration was cut off")]
    Interrupted,
}

impl NetworkError {
    /// The kernel's error number, if it was the kernel that said no.
    pub(crate) fn errno(&self) -> Option<i32> {
        match self {
            Self::Open(source) | Self::Routers(source) | Self::Resolv { source, .. } => {
                source.raw_os_error()
            }
            Self::Step(error) => error.errno(),
            Self::NoInterface | Self::Interrupted => None,
        }
    }
}

/// Configures the network, one configuration after the other.
#[derive(Debug)]
pub(crate) struct Network {
    resolv_conf: PathBuf,
    turn: Arc<Mutex<()>>,
}

impl Network {
    /// `resolv_conf` is what name servers are written to.
    pub(crate) fn new(resolv_conf: PathBuf) -> Self {
        Self { resolv_conf, turn: Arc::default() }
    }

    /// Makes the network what `plan` says.
    ///
    /// Dropping the future doesn't stop a configuration that has begun.
    pub(crate) async fn configure(&self, plan: NetworkPlan) -> Result<(), NetworkError> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let resolv_conf = self.resolv_conf.clone();
        let work = tokio::spawn(async move {
            let _turn = turn;
            apply(&plan, &resolv_conf).await
        });
        work.await.unwrap_or(Err(NetworkError::Interrupted))
    }
}

async fn apply(plan: &NetworkPlan, resolv_conf: &Path) -> Result<(), NetworkError> {
    let rtnl = Rtnl::open().map_err(NetworkError::Open)?;
    let link = link::first_ethernet(&rtnl).await?.ok_or(NetworkError::NoInterface)?;
    link::ignore_routers(&link).map_err(NetworkError::Routers)?;
    link::set_up(&rtnl, &link).await?;
    address::replace(&rtnl, link.index, &plan.address).await?;
    route::replace_default(&rtnl, link.index, plan.gateway).await?;
    resolv::replace(resolv_conf, &plan.dns)
        .await
        .map_err(|source| NetworkError::Resolv { path: resolv_conf.to_owned(), source })?;
    tracing::info!("network configured");
    Ok(())
}
