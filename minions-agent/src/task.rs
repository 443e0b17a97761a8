//! Tasks of the runtime.
//!
//! The runtime's code for a task exists once for each type of future or closure, 3 KB each. Here all have the same types,
//! which costs an allocation for each task.

use crate::lock::lock;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use tokio::task::{JoinError, JoinHandle};

/// Future of a task, of any type.
pub(crate) type BoxedTask = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Starts a task.
///
/// # Panics
///
/// Panics outside of a tokio runtime.
pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    let work: BoxedTask = Box::pin(work);
    tokio::spawn(work)
}

/// Starts `work` on a thread that may block. It runs to its end even if the returned value is dropped.
///
/// # Panics
///
/// Panics outside of a tokio runtime.
pub(crate) fn spawn_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> BlockingTask<T> {
    let result = Arc::new(Mutex::new(None));
    let told = Arc::clone(&result);
    let work: Box<dyn FnOnce() + Send> = Box::new(move || {
        let done = work();
        *lock(&told) = Some(done);
    });
    BlockingTask { task: tokio::task::spawn_blocking(work), result }
}

/// Future of the result of [`spawn_blocking`]. An error means that the work panicked, or was never started because the
/// runtime is shutting down.
#[derive(Debug)]
#[must_use = "the result may be an error"]
pub(crate) struct BlockingTask<T> {
    task: JoinHandle<()>,
    result: Arc<Mutex<Option<T>>>,
}

impl<T> Future for BlockingTask<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        ready!(Pin::new(&mut self.task).poll(context))?;
        let result = lock(&self.result).take();
        Poll::Ready(Ok(result.expect("set before the task ended, and taken only once")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_result_of_a_thread_is_returned_and_a_panic_is_an_error() {
        assert_eq!(spawn_blocking(|| 7).await.unwrap(), 7);
        let failed = spawn_blocking(|| -> u32 { panic!("as a bug would") }).await;
        assert!(failed.unwrap_err().is_panic());
    }

    #[tokio::test]
    async fn work_runs_to_its_end_without_a_caller() {
        let (told, heard) = std::sync::mpsc::channel();
        drop(spawn_blocking(move || told.send(()).unwrap()));
        spawn_blocking(move || heard.recv().unwrap()).await.unwrap();
    }
}
