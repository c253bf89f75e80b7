//! Worker threads, a bounded queue and an orderly end around any function of a step.
//!
//! Workers take the steps one after the other and answer out of order; [`Prefetch::next`] hands the results out in
//! order. No more than `ahead` steps are taken and not handed out. Knows nothing of sampling.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// What waiting for the next result came to.
#[derive(Debug)]
pub enum Next<T> {
    /// The result.
    Ready(T),
    /// Not there yet.
    Pending,
    /// The last step was handed out.
    End,
}

/// A stream of results, made ahead by worker threads.
#[derive(Debug)]
pub struct Prefetch<T> {
    shared: Arc<Shared<T>>,
    workers: Vec<JoinHandle<()>>,
    process: u32,
}

#[derive(Debug)]
struct Shared<T> {
    queue: Mutex<Queue<T>>,
    /// A result arrived, or the end.
    arrived: Condvar,
    /// A step may be taken, or the end.
    room: Condvar,
    /// Set with the queue's own flag, for workers that look up between two pieces of a step.
    is_closed: AtomicBool,
}

#[derive(Debug)]
struct Queue<T> {
    /// The next step a worker takes.
    to_take: u64,
    /// The next step to hand out.
    to_hand_out: u64,
    end: Option<u64>,
    ahead: u64,
    ready: BTreeMap<u64, Result<T>>,
    is_closed: bool,
    has_lost_worker: bool,
}

impl<T> Shared<T> {
    fn queue(&self) -> MutexGuard<'_, Queue<T>> {
        // no code that can panic runs under the lock, and the queue is whole after each statement
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The steps as one worker sees them.
#[derive(Debug)]
pub struct Steps<T>(Arc<Shared<T>>);

impl<T> Steps<T> {
    /// Takes steps until none is left, and delivers what `work` makes of each.
    ///
    /// A panic of `work` is delivered as an error; the worker goes on with the next step.
    pub fn run(&self, mut work: impl FnMut(u64) -> Result<T>) {
        while let Some(step) = self.take() {
            let result = catch_unwind(AssertUnwindSafe(|| work(step)))
                .unwrap_or_else(|_| Err(Error::Closed(format!("the worker of step {step} panicked"))));
            let mut queue = self.0.queue();
            queue.ready.insert(step, result);
            if step == queue.to_hand_out {
                self.0.arrived.notify_all();
            }
        }
    }

    /// Whether nobody waits for results any more; long work may then end early with any error.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed.load(Ordering::Relaxed)
    }

    fn take(&self) -> Option<u64> {
        let mut queue = self.0.queue();
        loop {
            if queue.is_closed || queue.end.is_some_and(|end| queue.to_take >= end) {
                return None;
            }
            if queue.to_take < queue.to_hand_out.saturating_add(queue.ahead) {
                queue.to_take += 1;
                return Some(queue.to_take - 1);
            }
            queue = self.0.room.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<T: Send + 'static> Prefetch<T> {
    /// Starts `threads` workers on the steps from `first` up to `end`, each running `worker` once.
    ///
    /// # Errors
    /// [`Error::Io`] when the system gives no thread.
    pub fn start(
        threads: usize,
        ahead: usize,
        first: u64,
        end: Option<u64>,
        worker: impl Fn(&Steps<T>) + Send + Sync + 'static,
    ) -> Result<Self> {
        let queue = Queue {
            to_take: first,
            to_hand_out: first,
            end,
            ahead: ahead.max(threads).max(1) as u64,
            ready: BTreeMap::new(),
            is_closed: false,
            has_lost_worker: false,
        };
        let shared = Arc::new(Shared {
            queue: Mutex::new(queue),
            arrived: Condvar::new(),
            room: Condvar::new(),
            is_closed: AtomicBool::new(false),
        });
        let mut prefetch = Self { shared, workers: vec![], process: std::process::id() };
        let worker = Arc::new(worker);
        for idx in 0..threads.max(1) {
            let (worker, steps) = (worker.clone(), Steps(prefetch.shared.clone()));
            let body = move || {
                if catch_unwind(AssertUnwindSafe(|| worker(&steps))).is_err() {
                    steps.0.queue().has_lost_worker = true;
                    steps.0.arrived.notify_all();
                }
            };
            let thread = std::thread::Builder::new().name(format!("prefetch-{idx}")).spawn(body);
            prefetch.workers.push(thread.map_err(|source| Error::io("worker thread", source))?);
        }
        Ok(prefetch)
    }

    /// The next result in order; waits up to `timeout` for it.
    ///
    /// # Errors
    /// The error of the step's work; [`Error::Closed`] after [`Self::close`], in a forked child, or when a worker died.
    pub fn next(&self, timeout: Duration) -> Result<Next<T>> {
        // in a forked child the lock may be held by a thread that does not exist there
        if std::process::id() != self.process {
            return Err(Error::Closed("worker threads do not survive a fork; start anew in the child".into()));
        }
        let deadline = Instant::now() + timeout;
        let mut queue = self.shared.queue();
        loop {
            let step = queue.to_hand_out;
            if queue.is_closed {
                return Err(Error::Closed("the stream is closed".into()));
            }
            if let Some(result) = queue.ready.remove(&step) {
                queue.to_hand_out += 1;
                self.shared.room.notify_all();
                return result.map(Next::Ready);
            }
            if queue.end.is_some_and(|end| step >= end) {
                return Ok(Next::End);
            }
            if queue.has_lost_worker {
                return Err(Error::Closed("a worker thread died".into()));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Next::Pending);
            }
            queue = self.shared.arrived.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl<T> Prefetch<T> {
    /// Ends the workers and waits for them; does nothing the second time.
    pub fn close(&mut self) {
        if std::process::id() != self.process {
            // those threads live in the parent; their handles mean nothing here
            std::mem::forget(std::mem::take(&mut self.workers));
            return;
        }
        self.shared.queue().is_closed = true;
        self.shared.is_closed.store(true, Ordering::Relaxed);
        self.shared.room.notify_all();
        self.shared.arrived.notify_all();
        for worker in self.workers.drain(..) {
            let _ = worker.join(); // panics were caught inside
        }
        self.shared.queue().ready.clear();
    }
}

impl<T> Drop for Prefetch<T> {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn collect(prefetch: &Prefetch<u64>) -> Vec<u64> {
        let mut all = vec![];
        while let Next::Ready(value) = prefetch.next(SOON).unwrap() {
            all.push(value);
        }
        all
    }

    fn slow_square(step: u64) -> u64 {
        // later steps are faster, so that workers answer out of order
        std::thread::sleep(Duration::from_micros(200 * (7 - step % 7)));
        step * step
    }

    #[test]
    fn results_come_in_order_for_any_number_of_threads() {
        for (threads, ahead) in [(1, 1), (1, 4), (2, 1), (4, 3), (16, 16)] {
            let prefetch =
                Prefetch::start(threads, ahead, 3, Some(60), |steps| steps.run(|step| Ok(slow_square(step)))).unwrap();
            assert_eq!(collect(&prefetch), (3..60).map(|step| step * step).collect::<Vec<_>>());
            assert!(matches!(prefetch.next(SOON).unwrap(), Next::End));
        }
    }

    #[test]
    fn no_more_than_ahead_is_made() {
        let started = Arc::new(AtomicU64::new(0));
        let count = started.clone();
        let prefetch = Prefetch::start(2, 5, 0, None, move |steps| {
            steps.run(|step| {
                count.fetch_add(1, Ordering::SeqCst);
                Ok(step)
            });
        })
        .unwrap();
        assert!(matches!(prefetch.next(SOON).unwrap(), Next::Ready(0)));
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(started.load(Ordering::SeqCst), 6);
    }

    #[test]
    fn an_error_arrives_at_its_step() {
        let prefetch = Prefetch::start(3, 4, 0, Some(9), |steps| {
            steps.run(|step| match step {
                4 => Err(Error::Argument("four".into())),
                6 => panic!("six"),
                _ => Ok(step),
            });
        })
        .unwrap();
        let results: Vec<_> = (0..9).map(|_| prefetch.next(SOON)).collect();
        for (step, result) in results.into_iter().enumerate() {
            match (step, result) {
                (4, Err(Error::Argument(message))) => assert_eq!(message, "four"),
                (6, Err(Error::Closed(message))) => assert!(message.contains("step 6"), "{message}"),
                (_, Ok(Next::Ready(value))) => assert_eq!(value, step as u64),
                (_, other) => panic!("step {step}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_worker_that_dies_is_noticed() {
        let prefetch: Prefetch<u64> = Prefetch::start(1, 1, 0, None, |_| panic!("at start")).unwrap();
        assert!(matches!(prefetch.next(SOON), Err(Error::Closed(_))));
    }

    #[test]
    fn closing_is_quick_and_can_be_repeated() {
        let began = Instant::now();
        let mut prefetch = Prefetch::start(4, 100, 0, None, |steps| steps.run(|step| Ok(slow_square(step)))).unwrap();
        assert!(matches!(prefetch.next(SOON).unwrap(), Next::Ready(0)));
        prefetch.close();
        prefetch.close();
        assert!(matches!(prefetch.next(SOON), Err(Error::Closed(_))));
        drop(prefetch);
        assert!(began.elapsed() < Duration::from_secs(1));
    }

    #[test]
    fn waiting_ends_with_the_timeout() {
        let prefetch = Prefetch::start(1, 1, 0, Some(1), |steps| {
            steps.run(|_| {
                std::thread::sleep(Duration::from_millis(100));
                Ok(1)
            });
        })
        .unwrap();
        assert!(matches!(prefetch.next(Duration::from_millis(1)).unwrap(), Next::Pending));
        assert!(matches!(prefetch.next(SOON).unwrap(), Next::Ready(1)));
    }
}
