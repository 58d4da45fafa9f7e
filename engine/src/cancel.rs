//! Taking a request back: one token per request, shared by whoever may cancel it and whatever runs it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// A flag that is raised once and never lowered. Clones are the same flag.
#[derive(Debug, Clone, Default)]
pub struct CancelToken {
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    cancelled: AtomicBool,
    raised: Notify,
}

impl CancelToken {
    /// A token that nobody has raised.
    pub fn new() -> Self {
        Self::default()
    }

    /// Raises the flag and wakes whoever waits in [`cancelled`](Self::cancelled). Callable from any thread, any number of times.
    pub fn cancel(&self) {
        self.state.cancelled.store(true, Ordering::Release);
        self.state.raised.notify_waiters();
    }

    /// Whether the flag is raised: cheap enough for every batch of rows.
    pub fn is_cancelled(&self) -> bool {
        self.state.cancelled.load(Ordering::Acquire)
    }

    /// Resolves when the flag is raised.
    pub async fn cancelled(&self) {
        // `notified` counts as waiting from its creation on, so a flag raised between the two lines is not missed.
        let raised = self.state.raised.notified();
        if !self.is_cancelled() {
            raised.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_when_another_thread_raises_the_flag() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let token = CancelToken::new();
        let waiter = runtime.spawn({
            let token = token.clone();
            async move { token.cancelled().await }
        });
        assert!(!token.is_cancelled());
        token.cancel();
        runtime.block_on(waiter).unwrap();
        assert!(token.is_cancelled());
        runtime.block_on(token.cancelled()); // raised before the wait: no wait at all
    }
}
