//! Long work with a Python function that is told of its progress.
//!
//! The work runs in a thread of its own, never touching Python. The calling thread waits without the GIL, takes it
//! from time to time to pass the news on and to look for signals, so that Ctrl-C works and the function runs in the
//! thread that asked.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};
use indexmap::IndexMap;
use pyo3::prelude::*;

use crate::error::{Error, Result};
use crate::preprocess::Progress;

/// Between two looks at news and signals.
const PATIENCE: Duration = Duration::from_millis(100);

/// The last news of each table: rows done and rows in total.
type News = Mutex<IndexMap<String, (u64, u64)>>;

/// Runs `work` and tells `callback(table, rows_done, rows_total)` of its progress.
///
/// What `callback` or a signal handler raises stops the work at its next report and is raised.
pub(super) fn watched<T: Send>(
    py: Python<'_>,
    callback: Option<&Py<PyAny>>,
    work: impl FnOnce(Progress<'_>) -> Result<T> + Send,
) -> PyResult<T> {
    let (news, is_stopped) = (News::default(), AtomicBool::new(false));
    let report = |table: &str, done: u64, total: u64| {
        if is_stopped.load(Ordering::Relaxed) {
            return Err(Error::Closed("stopped".into()));
        }
        news.lock().unwrap_or_else(PoisonError::into_inner).insert(table.to_owned(), (done, total));
        Ok(())
    };
    let (end, ended) = bounded::<()>(0);
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let _end = end; // dropped when the work ends, also by a panic
            work(&report)
        });
        let mut raised = None;
        loop {
            let has_ended = py.detach(|| ended.recv_timeout(PATIENCE)) == Err(RecvTimeoutError::Disconnected);
            if raised.is_none() {
                raised = py.check_signals().and_then(|()| pass_on(py, &news, callback)).err();
                is_stopped.store(raised.is_some(), Ordering::Relaxed);
            }
            if has_ended {
                break;
            }
        }
        let result = py.detach(|| worker.join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        raised.map_or_else(|| Ok(result?), Err)
    })
}

fn pass_on(py: Python<'_>, news: &News, callback: Option<&Py<PyAny>>) -> PyResult<()> {
    let news = std::mem::take(&mut *news.lock().unwrap_or_else(PoisonError::into_inner));
    let Some(callback) = callback else { return Ok(()) };
    for (table, (done, total)) in news {
        callback.call1(py, (table, done, total))?;
    }
    Ok(())
}
