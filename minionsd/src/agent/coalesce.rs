//! Questions that wait share one.
//!
//! ```text
//!  caller ─▶ a turn is free ─────────▶ asks
//!        └─▶ none is: waits with all who came since ─▶ a turn: one of them asks, all get the answer
//! ```
//!
//! For what is the same for everybody who asks now. Whoever gets an answer came before its question was
//! asked, so it is as fresh as if it were their own.
//!
//! Only answers are shared. Whoever waited in vain, or for [`PATIENCE`], asks for themselves: nobody is
//! held up by an agent that hangs longer than that, nor fails by another one's deadline.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};

/// Questions under way at once, of those that others can wait for. With a second one, who comes while one
/// is under way doesn't wait for its end.
const TURNS: usize = 2;

/// How long anybody waits for another one's question: ten times what an agent needs for an answer.
const PATIENCE: Duration = Duration::from_millis(10);

/// One question to one agent.
#[derive(Debug)]
pub(crate) struct Coalesced<T> {
    turns: Semaphore,
    /// What those who wait now will be told.
    next: Mutex<Option<watch::Receiver<Option<T>>>>,
}

impl<T> Default for Coalesced<T> {
    fn default() -> Self {
        Self { turns: Semaphore::new(TURNS), next: Mutex::new(None) }
    }
}

/// What there is to do for one who waits.
enum Part<T> {
    /// To ask, and tell the others.
    Ask(watch::Sender<Option<T>>),
    /// To be told.
    Listen(watch::Receiver<Option<T>>),
}

impl<T: Clone> Coalesced<T> {
    /// The answer to `question`, asked by this caller or by another one who waited beside it.
    ///
    /// Cancel safe if `question` is: those who waited for it ask for themselves.
    ///
    /// # Errors
    ///
    /// The caller's own question's.
    pub(crate) async fn ask<E>(
        &self,
        question: impl Future<Output = Result<T, E>>,
        deadline: Instant,
    ) -> Result<T, E> {
        if let Ok(_turn) = self.turns.try_acquire() {
            return question.await;
        }
        let patience = deadline.min(Instant::now() + PATIENCE);
        match self.join() {
            Part::Ask(tell) => {
                // Without a turn it asks all the same; none is ever closed.
                let _turn = timeout_at(patience, self.turns.acquire()).await;
                // Whoever comes from here on comes too late for this question.
                self.close(&tell);
                let answer = question.await?;
                tell.send_replace(Some(answer.clone()));
                Ok(answer)
            }
            Part::Listen(mut told) => {
                let told = timeout_at(patience, told.wait_for(Option::is_some)).await;
                let told = told.ok().and_then(|told| told.ok()?.clone());
                match told {
                    Some(answer) => Ok(answer),
                    None => question.await,
                }
            }
        }
    }

    fn join(&self) -> Part<T> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        match &*next {
            // Who should have asked may have left.
            Some(told) if told.has_changed().is_ok() => Part::Listen(told.clone()),
            _ => {
                let (tell, told) = watch::channel(None);
                *next = Some(told);
                Part::Ask(tell)
            }
        }
    }

    fn close(&self, tell: &watch::Sender<Option<T>>) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        next.take_if(|told| told.same_channel(&tell.subscribe()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::sync::Semaphore;
    use tokio::task::JoinSet;
    use tokio::time::{advance, timeout};

    /// An agent whose answers are numbered by when they were asked for, and come when they are let go.
    #[derive(Default, Clone)]
    struct Agent(Arc<Inner>);

    struct Inner {
        coalesced: Coalesced<u32>,
        asked: AtomicU32,
        go: Semaphore,
    }

    impl Default for Inner {
        fn default() -> Self {
            Self {
                coalesced: Coalesced::default(),
                asked: AtomicU32::new(0),
                go: Semaphore::new(0),
            }
        }
    }

    impl Agent {
        async fn ask(self) -> Result<u32, u32> {
            let Self(agent) = &self;
            let question = async {
                let number = agent.asked.fetch_add(1, Ordering::SeqCst) + 1;
                agent.go.acquire().await.unwrap().forget();
                if number == 3 { Err(number) } else { Ok(number) }
            };
            agent.coalesced.ask(question, Instant::now() + Duration::from_secs(60)).await
        }

        fn asked(&self) -> u32 {
            self.0.asked.load(Ordering::SeqCst)
        }

        fn answer(&self, questions: usize) {
            self.0.go.add_permits(questions);
        }
    }

    async fn settle() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    /// Two with a turn each, and eight who wait.
    async fn crowd(agent: &Agent) -> JoinSet<Result<u32, u32>> {
        let (mut crowd, asked) = (JoinSet::new(), agent.asked());
        for _ in 0..10 {
            crowd.spawn(agent.clone().ask());
            settle().await;
        }
        assert_eq!(agent.asked() - asked, 2);
        crowd
    }

    fn sorted(answers: Vec<Result<u32, u32>>) -> Vec<Result<u32, u32>> {
        let mut answers = answers;
        answers.sort_unstable();
        answers
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_share_one_question_that_is_asked_after_they_came() {
        let agent = Agent::default();
        // So that the third, which fails, is nobody's.
        agent.0.asked.store(3, Ordering::SeqCst);
        let mut crowd = crowd(&agent).await;
        agent.answer(2);
        settle().await;
        // One question for the eight; who comes now isn't one of them.
        assert_eq!(agent.asked(), 6);
        crowd.spawn(agent.clone().ask());
        settle().await;
        agent.answer(2);
        let answers = sorted(crowd.join_all().await);
        assert_eq!(answers[..2], [Ok(4), Ok(5)]);
        assert_eq!(answers[2..10], [Ok(6); 8]);
        assert_eq!(answers[10], Ok(7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_its_own_callers_and_the_others_ask_for_themselves() {
        let agent = Agent::default();
        let crowd = crowd(&agent).await;
        agent.answer(10);
        let answers = sorted(crowd.join_all().await);
        assert_eq!(agent.asked(), 10);
        assert_eq!(answers.iter().filter(|answer| **answer == Err(3)).count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_another_ones_question_for_longer_than_its_patience() {
        let agent = Agent::default();
        let crowd = crowd(&agent).await;
        advance(PATIENCE + Duration::from_millis(1)).await;
        settle().await;
        assert_eq!(agent.asked(), 10, "all of them are under way, and none is answered");
        drop(crowd);
    }

    #[tokio::test(start_paused = true)]
    async fn who_should_have_asked_may_leave() {
        let agent = Agent::default();
        let turns = &agent.0.coalesced.turns;
        let busy = [turns.acquire().await.unwrap(), turns.acquire().await.unwrap()];
        assert!(timeout(Duration::from_millis(1), agent.clone().ask()).await.is_err());
        let mut crowd = JoinSet::new();
        for _ in 0..2 {
            crowd.spawn(agent.clone().ask());
            settle().await;
        }
        drop(busy);
        agent.answer(1);
        assert_eq!(crowd.join_all().await, [Ok(1), Ok(1)]);
        assert_eq!(agent.asked(), 1);
    }
}
