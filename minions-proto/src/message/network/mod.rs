//! `configure_network` configures the guest's network, `network_confirm` makes a change permanent,
//! `read_network` reads the network.
//!
//! `configure_network` has two forms. The base form ([`ConfigureNetwork`]) is frozen; the form with all settings
//! ([`ChangeNetwork`]) is for agents that announce [`Feature::Network`](super::Feature::Network). Both are converted to
//! a [`NetworkPlan`], in which every value has been checked.

mod base;
mod bounds;
mod change;
mod check;
mod plan;
mod planning;
mod reading;
mod reply;
mod routes;

pub use base::ConfigureNetwork;
pub use bounds::{
    CONFIRM_WITHIN_MS, MAX_ADDRESSES, MAX_DNS_SERVERS, MAX_INTERFACES, MAX_ROUTES,
    MAX_SEARCH_DOMAINS, MTU,
};
pub use change::{ChangeNetwork, InterfaceChange, RouteChange};
pub use check::Check;
pub use plan::{DnsPlan, InterfacePlan, NetworkPlan, RoutePlan, Selector};
pub use reading::{Dns, NetworkState, ReadNetwork, Route};
pub use reply::{NetworkChanged, NetworkConfirm, NetworkDiff, PendingChange};
