//! The end of a worker whose engine has gone while the application blocks.
#![forbid(unsafe_code)]

use std::{
    fs, io,
    path::{Path, PathBuf},
    process,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use pyo3::{
    prelude::*,
    types::{PyCFunction, PyDict},
};
use toolb_core::consumer::HangUp;

use crate::errors::AttachError;

/// Ends this process if it still runs some time after the engine has gone. The thread needs nothing
/// of Python: it works while a handler holds up the loop, or the interpreter's lock. While the
/// application forks it is not there: a fork is safe only in a process of one thread, and Python
/// since 3.12 warns of any other.
pub(crate) fn watch(py: Python<'_>, hang_up: io::Result<HangUp>) -> PyResult<()> {
    let told = |error: io::Error| AttachError::new_err(format!("cannot watch the engine: {error}"));
    let watch: &'static Watch = Box::leak(Box::new(Watch {
        hang_up: hang_up.map_err(told)?,
        gone: OnceLock::new(),
        thread: Mutex::new(None),
        paused: Mutex::new(false),
    }));
    watch.begin().map_err(told)?;
    let hooks = PyDict::new(py);
    let before = PyCFunction::new_closure(py, None, None, |_, _| watch.pause())?;
    hooks.set_item("before", before)?;
    let after = PyCFunction::new_closure(py, None, None, |_, _| watch.resume())?;
    hooks.set_item("after_in_parent", after)?;
    py.import("os")?
        .call_method("register_at_fork", (), Some(&hooks))
        .map(drop)
}

struct Watch {
    hang_up: HangUp,
    /// When the engine was seen to have gone.
    gone: OnceLock<Instant>,
    /// The thread that watches, of this very process: a child has none.
    thread: Mutex<Option<JoinHandle<Option<PathBuf>>>>,
    /// It is to go on after the fork.
    paused: Mutex<bool>,
}

impl Watch {
    fn begin(&'static self) -> io::Result<()> {
        let thread = thread::Builder::new()
            .name("toolb-orphan".to_owned())
            .stack_size(STACK)
            .spawn(|| {
                self.run();
                fs::read_link("/proc/thread-self").ok()
            })?;
        lock(&self.thread).replace(thread);
        Ok(())
    }

    fn pause(&self) -> io::Result<()> {
        let thread = lock(&self.thread).take();
        *lock(&self.paused) = thread.is_some();
        let Some(thread) = thread else { return Ok(()) };
        self.hang_up.call_off()?;
        if let Ok(Some(task)) = thread.join() {
            // The kernel counts a thread for a moment after it can be joined.
            let task = Path::new("/proc").join(task);
            while task.exists() {
                thread::yield_now();
            }
        }
        Ok(())
    }

    fn resume(&'static self) -> io::Result<()> {
        if !*lock(&self.paused) {
            return Ok(());
        }
        self.hang_up.resume();
        self.begin()
    }

    /// Returns when it is called off.
    fn run(&self) {
        if !self.hang_up.wait().unwrap_or(false) {
            return;
        }
        let gone = self.gone.get_or_init(Instant::now);
        let left = PATIENCE.saturating_sub(gone.elapsed());
        if !self.hang_up.pause(left).unwrap_or(true) {
            return;
        }
        let line = format!(
            "toolb.worker: process {} was still busy {} s after its server had gone, and is ended\n",
            process::id(),
            PATIENCE.as_secs()
        );
        self.hang_up.end_process(&line, ENGINE_GONE);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// More than GRACE of `toolb/worker.py` for a hang-up and CANCEL_GRACE of `toolb/_finish.py`
/// together.
const PATIENCE: Duration = Duration::from_secs(5);
/// The exit code of that name in `toolb/worker.py`.
const ENGINE_GONE: i32 = 1;
const STACK: usize = 64 << 10;
