//! A question that many ask at the same time, and that is put once.

use std::future::Future;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// The last answer. The lock is held while the question is put, so that those who come meanwhile wait; they take the answer to
/// the next question that was put after they came, which is as new as an answer of their own.
#[derive(Debug)]
pub(crate) struct AskedOnce<T>(Mutex<Option<(Instant, T)>>);

impl<T> Default for AskedOnce<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Clone> AskedOnce<T> {
    /// The answer to `question`, which may have been put by someone else, but not before this call.
    ///
    /// # Errors
    /// That of the question; it is not kept.
    pub(crate) async fn get<E>(&self, question: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let called = Instant::now();
        let mut last = self.0.lock().await;
        if let Some((asked, answer)) = &*last
            && *asked >= called
        {
            return Ok(answer.clone());
        }
        let asked = Instant::now();
        *last = None;
        let answer = question.await?;
        *last = Some((asked, answer.clone()));
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn those_who_wait_share_an_answer_and_those_who_come_later_do_not() {
        let (asked, last) = (AtomicU32::new(0), AskedOnce::default());
        let question = || async {
            tokio::task::yield_now().await;
            Ok::<_, ()>(asked.fetch_add(1, Ordering::Relaxed))
        };
        let together = tokio::join!(last.get(question()), last.get(question()), last.get(question()));
        assert_eq!(together, (Ok(0), Ok(1), Ok(1)), "the first was under way when the others came");
        assert_eq!(last.get(question()).await, Ok(2));
    }
}
