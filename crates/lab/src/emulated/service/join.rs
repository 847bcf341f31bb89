//! Several futures at once.

use std::future::Future;
use std::pin::Pin;
use std::task::Poll;

type Slot<'f, T> = Pin<Box<dyn Future<Output = T> + Send + 'f>>;

/// What all of them come to, in their order.
pub(super) async fn all<'f, T: Send>(futures: impl IntoIterator<Item = impl Future<Output = T> + Send + 'f>) -> Vec<T> {
    limited(futures, usize::MAX).await
}

/// The same with so many at once at most.
pub(super) async fn limited<'f, T: Send>(
    futures: impl IntoIterator<Item = impl Future<Output = T> + Send + 'f>,
    limit: usize,
) -> Vec<T> {
    let mut waiting: std::collections::VecDeque<(usize, Slot<'f, T>)> =
        futures.into_iter().enumerate().map(|(at, future)| (at, Box::pin(future) as Slot<'f, T>)).collect();
    let mut done: Vec<Option<T>> = waiting.iter().map(|_| None).collect();
    let mut out: Vec<(usize, Slot<'f, T>)> = Vec::new();
    std::future::poll_fn(|cx| {
        loop {
            while out.len() < limit.max(1)
                && let Some(next) = waiting.pop_front()
            {
                out.push(next);
            }
            let before = out.len();
            out.retain_mut(|(at, future)| match future.as_mut().poll(cx) {
                Poll::Ready(value) => {
                    done[*at] = Some(value);
                    false
                }
                Poll::Pending => true,
            });
            if out.is_empty() && waiting.is_empty() {
                return Poll::Ready(());
            }
            if out.len() == before || waiting.is_empty() {
                return Poll::Pending;
            }
        }
    })
    .await;
    done.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn no_more_than_so_many_at_once() {
        let at_once = std::sync::Mutex::new((0, 0));
        let one = |i: usize| {
            let at_once = &at_once;
            async move {
                {
                    let mut state = at_once.lock().unwrap();
                    state.0 += 1;
                    state.1 = state.1.max(state.0);
                }
                tokio::task::yield_now().await;
                at_once.lock().unwrap().0 -= 1;
                i
            }
        };
        assert_eq!(run(limited((0..10).map(one), 3)), (0..10).collect::<Vec<_>>());
        assert_eq!(at_once.lock().unwrap().1, 3);
    }
}
