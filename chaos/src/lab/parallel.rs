//! Work that is shared by threads, with results in the order of the work.

use crate::world::panics::as_silent;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Does something with each item, on at most `jobs` threads; returns the results in the order of the items.
///
/// # Panics
/// If `work` does.
pub(crate) fn in_order<I: Sync, T: Send>(jobs: usize, items: &[I], work: impl Fn(&I) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let done: Vec<Mutex<Option<T>>> = items.iter().map(|_| Mutex::default()).collect();
    thread::scope(|scope| {
        for _ in 0..jobs.max(1).min(items.len()) {
            scope.spawn(as_silent(|| {
                while let Some((item, slot)) = {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    items.get(at).zip(done.get(at))
                } {
                    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(work(item));
                }
            }));
        }
    });
    let taken = |slot: Mutex<Option<T>>| slot.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.into_iter().map(|slot| taken(slot).expect("each item was worked on")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_work_whatever_the_threads() {
        let items: Vec<u32> = (0..100).collect();
        for jobs in [0, 1, 3, 200] {
            assert_eq!(in_order(jobs, &items, |item| item * 2), (0..100).map(|n| n * 2).collect::<Vec<_>>());
        }
        assert!(in_order(2, &[], |item: &u32| *item).is_empty());
    }
}
