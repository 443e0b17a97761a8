//! Bounds of the texts that a guest reports and minionsd keeps for the lifetime of the VM.

use minions_proto::message::AgentInfo;

/// Limit of one text of a guest, in bytes. The kernel allows 64 for a hostname; UUIDs have 36.
const KEPT_TEXT: usize = 256;

/// Limit of feature names in one list.
const KEPT_FEATURES: usize = 64;

/// Truncates the description of an agent to the bounds.
pub(super) fn bounded(agent: AgentInfo) -> AgentInfo {
    AgentInfo {
        name: clipped(agent.name),
        version: clipped(agent.version),
        protocol: agent.protocol,
        features: agent.features.names().take(KEPT_FEATURES).map(start_of).collect(),
        boot_id: clipped(agent.boot_id.into()).into(),
        instance_id: clipped(agent.instance_id.into()).into(),
        allowed: agent.allowed.map(few),
        generation: agent.generation,
        parent_instance_id: agent.parent_instance_id.map(|id| clipped(id.into()).into()),
        probe_count: agent.probe_count,
        restore: agent.restore,
    }
}

fn few(names: Vec<String>) -> Vec<String> {
    names.into_iter().take(KEPT_FEATURES).map(clipped).collect()
}

/// Returns the start of a text of a guest, up to the bound.
fn start_of(text: &str) -> &str {
    &text[..text.floor_char_boundary(KEPT_TEXT)]
}

/// Truncates a text of a guest to the bound.
pub(crate) fn clipped(text: String) -> String {
    clipped_to(KEPT_TEXT, text)
}

/// Truncates a text of a guest to this number of bytes.
pub(super) fn clipped_to(bound: usize, mut text: String) -> String {
    text.truncate(text.floor_char_boundary(bound));
    text.shrink_to_fit();
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_of_an_agent_is_truncated_to_the_bounds() {
        let text = || "f".repeat(10_000);
        let agent = AgentInfo {
            name: text(),
            version: text(),
            protocol: 2,
            features: vec![text(); 1000].into(),
            boot_id: text().into(),
            instance_id: text().into(),
            allowed: Some(vec![text(); 1000]),
            generation: Some(u64::MAX),
            parent_instance_id: Some(text().into()),
            probe_count: Some(u64::MAX),
            restore: None,
        };
        let kept = bounded(agent);
        let features: Vec<_> = kept.features.names().map(str::to_owned).collect();
        let lists = [features, kept.allowed.unwrap()];
        for list in &lists {
            assert_eq!(list.len(), KEPT_FEATURES);
        }
        let ids =
            [kept.boot_id.into(), kept.instance_id.into(), kept.parent_instance_id.unwrap().into()];
        let texts = [[kept.name, kept.version].as_slice(), &ids].concat();
        assert!(lists.concat().iter().chain(&texts).all(|text| text.len() == KEPT_TEXT));
        assert!(clipped("é".repeat(500_000)).len() <= KEPT_TEXT);
    }
}
