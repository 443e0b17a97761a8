//! Timeline of a boot, as the daemon sees it.

use minions_api::Timestamp;
use minions_proto::message::BootId;

/// Times of the current boot.
#[derive(Debug, Clone)]
pub(super) struct BootTimes {
    vmm_seen: Timestamp,
    connected: Option<Timestamp>,
    announced: Option<Timestamp>,
    ready: Option<Timestamp>,
    /// Signs of a boot that has not answered a probe yet. They belong to the current boot until that has answered.
    next: NextBoot,
}

/// Signs of a boot that has not answered yet.
#[derive(Debug, Clone, Default)]
struct NextBoot {
    connected: Option<Timestamp>,
    /// First announcement with this boot id.
    announced: Option<(BootId, Timestamp)>,
}

impl BootTimes {
    /// Begins the timeline of a VM whose VMM has just created its socket.
    pub(super) fn of_new_socket(now: Timestamp) -> Self {
        Self {
            vmm_seen: now,
            connected: None,
            announced: None,
            ready: None,
            next: NextBoot::default(),
        }
    }

    /// Records that the VMM has answered `CONNECT`.
    pub(super) fn connected(&mut self, at: Timestamp) {
        if self.ready.is_some() {
            // An earlier answer, which no health check followed, was another sign of the boot that was ready.
            self.next.connected = Some(at);
        } else {
            self.next.connected.get_or_insert(at);
        }
    }

    /// Records an announcement of the boot with this id.
    pub(super) fn announced(&mut self, boot: BootId, current: Option<&BootId>, at: Timestamp) {
        if self.ready.is_some() && current == Some(&boot) {
            self.announced.get_or_insert(at);
            return;
        }
        if self.next.announced.as_ref().is_none_or(|(known, _)| *known != boot) {
            self.next.announced = Some((boot, at));
        }
    }

    /// Records an answered probe of the boot with this id; `is_another` if it is not the boot that answered before.
    pub(super) fn answered(&mut self, boot: Option<&BootId>, is_another: bool, now: Timestamp) {
        let next = std::mem::take(&mut self.next);
        if self.ready.is_some() && !is_another {
            return;
        }
        let announced = next.announced.filter(|(announced, _)| Some(announced) == boot);
        self.connected = next.connected;
        self.announced = announced.map(|(_, at)| at);
        self.ready = Some(now);
    }

    /// Returns the times as REST shows them.
    pub(super) fn shown(&self) -> minions_api::vm::BootTimeline {
        let is_due = self.ready.is_none();
        let announced = self.next.announced.as_ref().map(|(_, at)| *at);
        minions_api::vm::BootTimeline {
            vmm_seen_at: self.vmm_seen,
            connected_at: self.connected.or(self.next.connected.filter(|_| is_due)),
            announced_at: self.announced.or(announced.filter(|_| is_due)),
            ready_at: self.ready,
            configured_at: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    fn at(second: u64) -> Timestamp {
        Timestamp(SystemTime::UNIX_EPOCH + Duration::from_secs(second))
    }

    /// Returns the seconds of: VMM seen, connected, announced, ready.
    fn seconds(times: &BootTimes) -> [Option<u64>; 4] {
        let shown = times.shown();
        [Some(shown.vmm_seen_at), shown.connected_at, shown.announced_at, shown.ready_at]
            .map(|at| Some(at?.0.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()))
    }

    #[test]
    fn the_first_sign_of_each_kind_counts_and_is_shown_before_the_vm_is_ready() {
        let mut times = BootTimes::of_new_socket(at(1));
        let one = BootId::from("one");
        times.connected(at(2));
        times.connected(at(3));
        times.announced(one.clone(), None, at(4));
        times.announced(one.clone(), None, at(5));
        assert_eq!(seconds(&times), [Some(1), Some(2), Some(4), None]);
        times.answered(Some(&one), false, at(6));
        times.connected(at(7));
        times.answered(Some(&one), false, at(8));
        assert_eq!(seconds(&times), [Some(1), Some(2), Some(4), Some(6)]);
    }

    #[test]
    fn another_boot_has_its_own_times() {
        let mut times = BootTimes::of_new_socket(at(1));
        let [one, two] = ["one", "two"].map(BootId::from);
        times.connected(at(2));
        times.answered(Some(&one), false, at(3));
        times.connected(at(10));
        times.announced(two.clone(), Some(&one), at(11));
        assert_eq!(seconds(&times), [Some(1), Some(2), None, Some(3)]);
        times.answered(Some(&two), true, at(12));
        assert_eq!(seconds(&times), [Some(1), Some(10), Some(11), Some(12)]);
    }

    #[test]
    fn an_answer_to_connect_that_no_health_check_followed_is_not_of_the_next_boot() {
        let mut times = BootTimes::of_new_socket(at(1));
        let [one, two] = ["one", "two"].map(BootId::from);
        times.answered(Some(&one), false, at(2));
        times.connected(at(10));
        times.connected(at(500));
        times.answered(Some(&two), true, at(501));
        assert_eq!(seconds(&times), [Some(1), Some(500), None, Some(501)]);
    }

    #[test]
    fn an_announcement_of_another_boot_than_the_one_that_answers_does_not_count() {
        let mut times = BootTimes::of_new_socket(at(1));
        let [one, other] = ["one", "other"].map(BootId::from);
        times.announced(other, None, at(2));
        times.answered(Some(&one), false, at(3));
        assert_eq!(seconds(&times), [Some(1), None, None, Some(3)]);
        times.announced(one.clone(), Some(&one), at(4));
        times.announced(one.clone(), Some(&one), at(5));
        assert_eq!(seconds(&times), [Some(1), None, Some(4), Some(3)]);
    }
}
