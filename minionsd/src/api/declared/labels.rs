//! Selection of VMs by labels, state and name.

use super::super::problem::ApiError;
use super::super::state::ApiState;
use crate::vm::Vm;
use minions_api::label::{LabelSelector, Labels};
use minions_api::vm::VmState;
use minions_api::{VmName, VmPattern};
use serde::Deserialize;

/// Query of `GET /vms`. A VM must satisfy all parameters.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct VmQuery {
    /// Labels that the VMs must have: `app=web,env!=prod,tier,!legacy`.
    pub(in super::super) label: Option<String>,
    /// State that the VMs must have.
    #[param(value_type = Option<VmState>)]
    pub(in super::super) state: Option<VmState>,
    /// Name, or pattern with `*` and `?`.
    pub(in super::super) name: Option<String>,
}

/// Parsed [`VmQuery`].
#[derive(Debug)]
pub(in super::super) struct VmSelection {
    label: Option<LabelSelector>,
    state: Option<VmState>,
    name: Option<VmPattern>,
}

impl VmQuery {
    /// Parses the query.
    pub(in super::super) fn parse(self) -> Result<VmSelection, ApiError> {
        let name = self.name.map(|name| {
            let invalid = |error| format!("`name` is {name:?}: {error}");
            let parsed = name.parse::<VmPattern>();
            parsed.map_err(|error| ApiError::malformed(Some("name".to_owned()), invalid(error)))
        });
        Ok(VmSelection {
            label: self.label.as_deref().map(selector).transpose()?,
            state: self.state,
            name: name.transpose()?,
        })
    }
}

/// Parses a label selector.
pub(in super::super) fn selector(text: &str) -> Result<LabelSelector, ApiError> {
    let parsed = text.parse::<LabelSelector>();
    parsed
        .map_err(|error| ApiError::malformed(Some("label".to_owned()), format!("`label`: {error}")))
}

impl VmSelection {
    /// Returns the labels of a VM that satisfies everything; `None` for other VMs.
    pub(in super::super) fn select(&self, api: &ApiState, vm: &Vm) -> Option<Labels> {
        let matches = self.name.as_ref().is_none_or(|name| name.matches(vm.name()))
            && self.state.is_none_or(|state| state == vm.state());
        if !matches {
            return None;
        }
        api.declared.read(|state| {
            let (name, declarations) = (vm.name(), state.declarations());
            match &self.label {
                Some(label) => declarations.labels_if(name, label),
                None => Some(declarations.labels_of(name)),
            }
        })
    }
}

/// Returns the labels of a VM, from its declarations.
pub(in super::super) fn labels_of(api: &ApiState, vm: &VmName) -> Labels {
    api.declared.read(|state| state.declarations().labels_of(vm))
}
