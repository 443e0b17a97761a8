//! Requests that a quiesce answers: the one that began it, and those that end it.

use super::error::QuiesceError;
use minions_proto::message::{Quiesced, Thawed};
use std::os::fd::OwnedFd;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

/// Request to end a quiesce: the channel for the reply. Dropped without a reply, the guest is not quiesced any more.
pub(super) type ThawOrder = oneshot::Sender<Thawed>;

/// Channel for the result of the request to quiesce.
type BegunSender = oneshot::Sender<Result<Quiesced, QuiesceError>>;

/// Reason to stop a step of a quiesce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopReason {
    ThawRequested,
    RequesterLeft,
    LeaseOver,
}

#[derive(Debug)]
pub(super) struct QuiesceRequests {
    /// `None` after the reply.
    begun: Option<BegunSender>,
    orders: mpsc::Receiver<ThawOrder>,
    /// The request that has ended the quiesce.
    order: Option<ThawOrder>,
}

impl QuiesceRequests {
    pub(super) fn new(begun: BegunSender, orders: mpsc::Receiver<ThawOrder>) -> Self {
        Self { begun: Some(begun), orders, order: None }
    }

    /// Waits until a step must be stopped. Cancel safe: a thaw request that was received is kept.
    pub(super) async fn stopped(&mut self, lease: Option<&AsyncFd<OwnedFd>>) -> StopReason {
        let Self { begun, orders, order } = self;
        let left = async {
            match begun {
                Some(begun) => begun.closed().await,
                None => std::future::pending().await,
            }
        };
        let lease_over = async {
            match lease {
                Some(timer) => drop(timer.readable().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = lease_over => StopReason::LeaseOver,
            received = orders.recv() => {
                *order = received;
                StopReason::ThawRequested
            }
            () = left => StopReason::RequesterLeft,
        }
    }

    /// Replies to the request to quiesce.
    ///
    /// # Errors
    ///
    /// The reason why the guest must be thawed at once: a thaw was requested meanwhile, or the requester has left.
    pub(super) fn begin(&mut self, reply: Quiesced) -> Result<(), StopReason> {
        if let Ok(order) = self.orders.try_recv() {
            self.order = Some(order);
            return Err(StopReason::ThawRequested);
        }
        let sent = self.begun.take().map(|begun| begun.send(Ok(reply)));
        if matches!(sent, Some(Ok(()))) { Ok(()) } else { Err(StopReason::RequesterLeft) }
    }

    /// Reports whether a thaw request has ended the quiesce.
    pub(super) fn has_order(&self) -> bool {
        self.order.is_some()
    }

    /// Refuses all thaw requests: they came when the guest was not quiesced any more.
    pub(super) fn refuse_orders(&mut self) {
        self.order = None;
        self.orders.close();
        while self.orders.try_recv().is_ok() {}
    }

    /// Answers everything that is still open. Sending fails if a requester has left.
    pub(super) fn finish(mut self, failure: Option<QuiesceError>, reply: &Thawed) {
        if let Some((begun, failure)) = self.begun.zip(failure) {
            let _ = begun.send(Err(failure));
        }
        if let Some(order) = self.order {
            let _ = order.send(reply.clone());
        }
        self.orders.close();
        while let Ok(order) = self.orders.try_recv() {
            let _ = order.send(Thawed { already: true, ..reply.clone() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot::error::TryRecvError;

    type Begun = oneshot::Receiver<Result<Quiesced, QuiesceError>>;

    fn requests() -> (QuiesceRequests, Begun, mpsc::Sender<ThawOrder>) {
        let ((begun, outcome), (orders, received)) = (oneshot::channel(), mpsc::channel(8));
        (QuiesceRequests::new(begun, received), outcome, orders)
    }

    fn quiesced() -> Quiesced {
        let (frozen, not_frozen, hooks) = (Vec::new(), Vec::new(), Vec::new());
        Quiesced { id: "q".into(), lease_ms: 1000, frozen, not_frozen, hooks }
    }

    fn thawed(already: bool) -> Thawed {
        let (thawed, hooks) = (Vec::new(), Vec::new());
        Thawed { id: "q".into(), quiesced_ms: 1, thawed, hooks, already }
    }

    #[tokio::test]
    async fn a_thaw_during_the_freeze_stops_it_and_the_quiesce_fails() {
        let (mut requests, mut outcome, orders) = requests();
        let (order, reply) = oneshot::channel();
        orders.send(order).await.unwrap();
        assert_eq!(requests.stopped(None).await, StopReason::ThawRequested);
        assert!(requests.has_order());
        requests.finish(Some(QuiesceError::NotQuiesced(String::new())), &thawed(false));
        assert!(outcome.try_recv().unwrap().is_err());
        assert_eq!(reply.await.unwrap(), thawed(false));
    }

    #[tokio::test]
    async fn a_thaw_before_the_reply_is_not_followed_by_a_success() {
        let (mut requests, mut outcome, orders) = requests();
        let (order, _reply) = oneshot::channel();
        orders.send(order).await.unwrap();
        assert_eq!(requests.begin(quiesced()), Err(StopReason::ThawRequested));
        assert_eq!(outcome.try_recv().unwrap_err(), TryRecvError::Empty);
    }

    #[tokio::test]
    async fn a_requester_that_has_left_stops_each_step() {
        let (mut requests, outcome, _orders) = requests();
        drop(outcome);
        assert_eq!(requests.stopped(None).await, StopReason::RequesterLeft);
        assert_eq!(requests.begin(quiesced()), Err(StopReason::RequesterLeft));
    }

    #[tokio::test]
    async fn only_the_first_of_several_thaws_has_ended_the_quiesce() {
        let (mut requests, mut outcome, orders) = requests();
        requests.begin(quiesced()).unwrap();
        assert!(outcome.try_recv().unwrap().is_ok());
        let ((first, first_reply), (second, second_reply)) =
            (oneshot::channel(), oneshot::channel());
        orders.send(first).await.unwrap();
        orders.send(second).await.unwrap();
        assert_eq!(requests.stopped(None).await, StopReason::ThawRequested);
        requests.finish(None, &thawed(false));
        assert_eq!(first_reply.await.unwrap(), thawed(false));
        assert_eq!(second_reply.await.unwrap(), thawed(true));
    }

    #[tokio::test]
    async fn a_thaw_that_arrived_after_the_end_gets_no_success() {
        let (mut requests, _outcome, orders) = requests();
        let (order, reply) = oneshot::channel();
        orders.send(order).await.unwrap();
        requests.refuse_orders();
        requests.finish(None, &thawed(false));
        reply.await.unwrap_err();
    }
}
