//! Texts of a guest that are kept for as long as its VM lives, and their bounds.

use minions_proto::message::AgentInfo;

/// The longest string of a guest's that is kept for as long as the VM lives, in bytes. The kernel
/// allows 64 for a hostname; UUIDs have 36.
const KEPT_TEXT: usize = 256;

/// The most features that are kept.
const KEPT_FEATURES: usize = 64;

/// Cuts what an agent reports of itself to its bounds.
pub(super) fn bounded(agent: AgentInfo) -> AgentInfo {
    AgentInfo {
        name: clipped(agent.name),
        version: clipped(agent.version),
        protocol: agent.protocol,
        features: few(agent.features.into_names()).into(),
        boot_id: clipped(agent.boot_id.into()).into(),
        instance_id: clipped(agent.instance_id.into()).into(),
        allowed: agent.allowed.map(few),
    }
}

fn few(names: Vec<String>) -> Vec<String> {
    names.into_iter().take(KEPT_FEATURES).map(clipped).collect()
}

/// Cuts a text of a guest to its bound.
pub(crate) fn clipped(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(KEPT_TEXT));
    text.shrink_to_fit();
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_agent_reports_of_itself_is_kept_only_up_to_a_bound() {
        let text = || "f".repeat(10_000);
        let agent = AgentInfo {
            name: text(),
            version: text(),
            protocol: 2,
            features: vec![text(); 1000].into(),
            boot_id: text().into(),
            instance_id: text().into(),
            allowed: Some(vec![text(); 1000]),
        };
        let kept = bounded(agent);
        let lists = [kept.features.into_names(), kept.allowed.unwrap()];
        for list in &lists {
            assert_eq!(list.len(), KEPT_FEATURES);
        }
        let texts = [kept.name, kept.version, kept.boot_id.into(), kept.instance_id.into()];
        assert!(lists.concat().iter().chain(&texts).all(|text| text.len() == KEPT_TEXT));
        assert!(clipped("é".repeat(500_000)).len() <= KEPT_TEXT);
    }
}
