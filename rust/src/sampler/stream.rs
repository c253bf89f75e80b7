//! Batches one after the other, and where the stream stands.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::collate::Batch;
use super::{Core, Sampler};
use crate::error::{Error, Result};
use crate::prefetch::{Next, Prefetch};

/// What asking for the next batch came to.
pub type Polled = Next<Batch>;

/// Where a sampler's stream of batches stands; shared by its clones.
pub(super) struct Stream {
    core: Arc<Core>,
    position: Mutex<Position>,
    /// Beside the lock, so that a batch made under it can look up and end.
    is_closed: AtomicBool,
    process: u32,
}

struct Position {
    /// The step of the next batch.
    step: u64,
    prefetch: Option<Prefetch<Batch>>,
}

/// What a stream is restored from.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    /// The step of the next batch.
    step: u64,
    /// Seeds handed out by all processes before that step.
    position: u64,
    rng_seed: u64,
    /// Checksum of the database's manifest.
    database: String,
    config: Value,
}

impl Stream {
    pub(super) fn new(core: Arc<Core>) -> Self {
        let position = Position { step: 0, prefetch: None };
        let (position, is_closed) = (Mutex::new(position), AtomicBool::new(false));
        Self { core, position, is_closed, process: std::process::id() }
    }

    fn position(&self) -> Result<MutexGuard<'_, Position>> {
        // checked before locking: in a forked child the lock may be held by a thread that does not exist there
        if std::process::id() != self.process {
            let message = "this sampler belongs to another process; make a new one after the fork";
            return Err(Error::Closed(message.into()));
        }
        Ok(self.position.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    /// The position of a stream that is not closed.
    fn open_position(&self) -> Result<MutexGuard<'_, Position>> {
        let position = self.position()?;
        if self.is_closed() { Err(Self::closed()) } else { Ok(position) }
    }

    fn closed() -> Error {
        Error::Closed("the sampler is closed".into())
    }

    fn poll(&self, timeout: Duration, is_unwanted: &dyn Fn() -> bool) -> Result<Polled> {
        let mut position = self.open_position()?;
        let core = &self.core;
        if core.num_steps().is_some_and(|steps| position.step >= steps) {
            return Ok(Next::End);
        }
        let workers = core.config.workers();
        let polled = if workers == 0 {
            let view = core.database.view();
            let is_unwanted = || self.is_closed() || is_unwanted();
            let made = core.batch(&mut core.walker(&view), position.step, &is_unwanted);
            made.map(Next::Ready).map_err(|error| if self.is_closed() { Self::closed() } else { error })
        } else {
            if position.prefetch.is_none() {
                let (core, steps) = (core.clone(), core.num_steps());
                let ahead = core.config.prefetch;
                position.prefetch = Some(Prefetch::start(workers, ahead, position.step, steps, move |steps| {
                    let view = core.database.view();
                    let mut walker = core.walker(&view);
                    steps.run(|step| core.batch(&mut walker, step, &|| steps.is_closed()));
                })?);
            }
            match &position.prefetch {
                Some(prefetch) => prefetch.next(timeout),
                None => Ok(Next::Pending),
            }
        };
        match &polled {
            Ok(Next::Ready(_)) => position.step += 1,
            Ok(Next::Pending | Next::End) => {}
            // asking again starts again at the same step
            Err(_) => position.prefetch = None,
        }
        polled
    }

    fn state(&self) -> Result<State> {
        let (step, config) = (self.position()?.step, &self.core.config);
        Ok(State {
            step,
            position: step.saturating_mul(config.seeds_per_step()),
            rng_seed: config.rng_seed,
            database: self.core.database.manifest().checksum.clone(),
            config: config.identity(),
        })
    }

    fn restore(&self, state: &State) -> Result<()> {
        let own = self.state()?;
        let refuse = |what: &str, given: &dyn std::fmt::Display, own: &dyn std::fmt::Display| {
            Err(Error::Argument(format!("the state was taken with {what} {given}, this sampler has {own}")))
        };
        if state.database != own.database {
            return refuse("the database of checksum", &state.database, &own.database);
        }
        if state.config != own.config || state.rng_seed != own.rng_seed {
            return refuse("the options", &state.config, &own.config);
        }
        let per_step = self.core.config.seeds_per_step();
        if !state.position.is_multiple_of(per_step) {
            return Err(Error::Argument(format!(
                "the state stands at seed {}, which is no multiple of this sampler's {per_step} seeds per step",
                state.position
            )));
        }
        let mut position = self.open_position()?;
        position.prefetch = None;
        position.step = state.position / per_step;
        Ok(())
    }

    fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        // in a forked child there is nothing to end
        if let Ok(mut position) = self.position() {
            position.prefetch = None;
        }
    }
}

impl Sampler {
    /// The next batch in order, made ahead by worker threads; waits up to `timeout` for it.
    ///
    /// # Errors
    /// As [`Self::batch`]; [`Error::Closed`] after [`Self::close`] or in a forked child.
    pub fn poll(&self, timeout: Duration) -> Result<Polled> {
        self.poll_unless(timeout, &|| false)
    }

    /// As [`Self::poll`]; where no worker makes batches ahead, this one ends with [`Error::Closed`] as soon as it
    /// `is_unwanted`, which is asked before every context.
    ///
    /// # Errors
    /// As [`Self::poll`].
    pub fn poll_unless(&self, timeout: Duration, is_unwanted: &dyn Fn() -> bool) -> Result<Polled> {
        self.stream.poll(timeout, is_unwanted)
    }

    /// Where the stream stands, as JSON.
    ///
    /// # Errors
    /// [`Error::Closed`] in a forked child.
    pub fn state(&self) -> Result<String> {
        serde_json::to_string(&self.stream.state()?).map_err(|error| Error::Argument(error.to_string()))
    }

    /// Continues where another sampler of the same database and options stood.
    ///
    /// The number of processes may differ as long as the position is a whole number of steps for the new one.
    ///
    /// # Errors
    /// [`Error::Argument`] when the state is of another database or other options, showing both; [`Error::Closed`]
    /// after [`Self::close`] or in a forked child.
    pub fn restore(&self, state: &str) -> Result<()> {
        let state = serde_json::from_str(state)
            .map_err(|error| Error::Argument(format!("not the state of a sampler: {error}")))?;
        self.stream.restore(&state)
    }

    /// Ends the worker threads; asking for a further batch of the stream is an error. Can be repeated.
    pub fn close(&self) {
        self.stream.close();
    }
}
