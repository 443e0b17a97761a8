//! Differences of a guest's network from its declaration, as a text.

use super::guest_text::clipped;
use minions_proto::message::{NetworkChanged, NetworkDiff};

/// Number of differences that the text names.
const NAMED: usize = 4;

/// Describes the differences that an agent has found. The text is short, whatever the agent says.
pub(crate) fn differences(done: &NetworkChanged) -> String {
    let all = done.changes.as_deref().unwrap_or_default();
    let shown = all.iter().take(NAMED).map(difference);
    let more = all.len().saturating_sub(NAMED);
    let rest = (more > 0).then(|| format!("{more} more"));
    let shown: Vec<_> = shown.chain(rest).collect();
    clipped(format!("the guest differs: {}", shown.join(", ")))
}

fn difference(NetworkDiff { what, interface, from, to }: &NetworkDiff) -> String {
    let on = interface.as_ref().map(|name| format!(" on {name}")).unwrap_or_default();
    let [has, needs] = [from, to].map(|value| value.as_deref().unwrap_or("nothing"));
    format!("{what}{on} is {has}, declared {needs}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_the_first_differences_and_counts_the_others() {
        let one = |to: &str| NetworkDiff {
            what: "address".into(),
            interface: Some("eth0".into()),
            from: None,
            to: Some(to.into()),
        };
        let changes = (0..6).map(|at| one(&format!("10.0.0.{at}/24"))).collect();
        let text = differences(&NetworkChanged { changes: Some(changes), ..Default::default() });
        assert!(text.contains("address on eth0 is nothing, declared 10.0.0.0/24"), "{text}");
        assert!(text.ends_with(", 2 more"), "{text}");
    }
}
