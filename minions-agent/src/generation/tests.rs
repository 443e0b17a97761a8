//! Tokens, and the decisions on `restore`.

use super::*;
use minions_proto::message::EntropyBytes;

fn generations() -> GenerationTracker {
    let (boot_id, instance_id) = ("boot".into(), "first".into());
    GenerationTracker::new(AgentIdentity { boot_id, instance_id }, 0)
}

fn restore(parent: &str, instance_id: &str) -> RestoreRequest {
    RestoreRequest {
        parent: parent.into(),
        instance_id: instance_id.into(),
        entropy: EntropyBytes::try_from(vec![0; 32]).unwrap(),
        time_unix_ms: 0,
        steps: Vec::new(),
        required: Vec::new(),
        hostname: None,
        network: None,
        hook_timeout_ms: None,
    }
}

fn probe(generations: &GenerationTracker, token: &str) -> Option<RestoreState> {
    generations.probed(&token.parse().unwrap());
    generations.state().restore
}

#[test]
fn only_a_token_never_seen_before_means_a_restore() {
    let generations = generations();
    assert_eq!(probe(&generations, "a"), None, "the first token");
    assert_eq!(probe(&generations, "a"), None, "the same VMM");
    assert!(generations.refusal().is_none());
    assert_eq!(probe(&generations, "b"), Some(RestoreState::Required));
    assert_eq!(generations.refusal().unwrap().code, Some(ErrorCode::Restoring));
    let action = generations.begin(&restore("first", "second")).unwrap();
    let RestoreAction::Begin { run, ended: 0 } = action else { panic!("{action:?}") };
    generations.ended(run, true);
    // A second host that names the first VMM differently.
    for token in ["a", "b", "a"] {
        assert_eq!(probe(&generations, token), Some(RestoreState::Done), "{token}");
    }
    assert_eq!(generations.state().probes, 6);
}

#[test]
fn the_number_of_tokens_is_bounded() {
    let generations = generations();
    for number in 0..100 {
        probe(&generations, &format!("t{number}"));
    }
    assert_eq!(generations.state().tokens.len(), MAX_TOKENS);
}

#[tokio::test]
async fn a_request_is_carried_out_once_and_repeated_only_after_a_reported_failure() {
    let generations = generations();
    let first = restore("first", "second");
    let RestoreAction::Begin { run, .. } = generations.begin(&first).unwrap() else { panic!() };
    // Another daemon, or a lost reply; it has another id in mind.
    let again = restore("first", "third");
    assert_eq!(generations.begin(&again).unwrap(), RestoreAction::Report);
    generations.ended(run, false);
    assert!(generations.refusal().is_some(), "a required step failed");
    assert_eq!(generations.begin(&again).unwrap(), RestoreAction::Report, "no reply has said so");
    assert_eq!(generations.report(&again.parent).await.state, RestoreState::Failed);
    let RestoreAction::Repeat { run } = generations.begin(&again).unwrap() else { panic!() };
    generations.ended(run, true);
    assert_eq!(generations.begin(&again).unwrap(), RestoreAction::Report);
    let state = generations.state();
    assert_eq!((state.number, state.instance_id.as_str()), (1, "second"));
    drop(state);
    let error = generations.begin(&restore("zeroth", "fourth")).unwrap_err();
    assert_eq!(
        (error.code, error.field.as_deref()),
        (Some(ErrorCode::InvalidArgument), Some("parent"))
    );
}

#[test]
fn steps_of_the_saved_guest_do_not_count_in_the_restored_one() {
    let generations = generations();
    probe(&generations, "a");
    let RestoreAction::Begin { run, .. } = generations.begin(&restore("first", "second")).unwrap()
    else {
        panic!()
    };
    assert_eq!(probe(&generations, "b"), Some(RestoreState::Required));
    let step =
        RestoreStep { step: "clock".into(), ok: true, detail: String::new(), duration_ms: 0 };
    generations.stepped(run, step);
    generations.ended(run, true);
    assert_eq!(generations.state().restore, Some(RestoreState::Required));
    assert!(
        generations.begin(&restore("first", "third")).is_err(),
        "the host means another instance"
    );
    let action = generations.begin(&restore("second", "third")).unwrap();
    assert!(matches!(action, RestoreAction::Begin { ended: 1, .. }), "{action:?}");
    assert!(generations.state().steps.is_empty());
}
