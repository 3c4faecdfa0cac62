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

use crate::{errors::AttachError, raw::run_in_main_thread};

/// Ends this process if it still runs some time after the engine has gone. The thread needs nothing
/// of Python: it works while a handler holds up the loop, or the interpreter's lock. While the
/// application forks it is not there: a fork is safe only in a process of one thread, and Python
/// since 3.12 warns of any other.
pub(crate) fn watch(py: Python<'_>, hang_up: io::Result<HangUp>) -> PyResult<()> {
    let told = |error: io::Error| AttachError::new_err(format!("cannot watch the engine: {error}"));
    let watch = Watch {
        hang_up: hang_up.map_err(told)?,
        process: process::id(),
        gone: OnceLock::new(),
        thread: Mutex::new(None),
    };
    if WATCH.set(watch).is_err() {
        return Err(AttachError::new_err("this process is watched already"));
    }
    begin().map_err(told)?;
    let hooks = PyDict::new(py);
    let before = PyCFunction::new_closure(py, None, None, |_, _| pause())?;
    hooks.set_item("before", before)?;
    let after = PyCFunction::new_closure(py, None, None, |_, _| resume())?;
    hooks.set_item("after_in_parent", after)?;
    py.import("os")?
        .call_method("register_at_fork", (), Some(&hooks))
        .map(drop)
}

fn begin() -> io::Result<()> {
    let Some(watch) = own() else { return Ok(()) };
    let mut thread = watch.thread();
    if thread.is_none() {
        watch.hang_up.resume();
        let builder = thread::Builder::new()
            .name("toolb-orphan".to_owned())
            .stack_size(STACK);
        *thread = Some(builder.spawn(|| {
            watch.run();
            fs::read_link("/proc/thread-self").ok()
        })?);
    }
    Ok(())
}

fn pause() -> io::Result<()> {
    let Some(watch) = own() else { return Ok(()) };
    let Some(thread) = watch.thread().take() else {
        return Ok(());
    };
    watch.hang_up.call_off()?;
    if let Ok(Some(task)) = thread.join() {
        // The kernel counts a thread for a moment after it can be joined.
        let task = Path::new("/proc").join(task);
        while task.exists() {
            thread::yield_now();
        }
    }
    Ok(())
}

/// Begins again once `os.fork` has returned: Python 3.13 counts threads after this hook.
fn resume() -> io::Result<()> {
    let again = |py: Python<'_>| {
        if let Err(error) = begin() {
            PyErr::from(error).write_unraisable(py, None);
        }
    };
    if run_in_main_thread(again) {
        return Ok(());
    }
    begin()
}

/// The watch, if it is over this process: a child that was forked has its engine elsewhere.
fn own() -> Option<&'static Watch> {
    WATCH.get().filter(|watch| watch.process == process::id())
}

struct Watch {
    hang_up: HangUp,
    process: u32,
    /// When the engine was seen to have gone.
    gone: OnceLock<Instant>,
    /// Tells, when it ends, where the kernel counts it.
    thread: Mutex<Option<JoinHandle<Option<PathBuf>>>>,
}

impl Watch {
    fn thread(&self) -> MutexGuard<'_, Option<JoinHandle<Option<PathBuf>>>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
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

/// More than `HANG_UP` of `toolb/_finish.py`.
const PATIENCE: Duration = Duration::from_secs(5);
/// The exit code of that name in `toolb/_run.py`.
const ENGINE_GONE: i32 = 1;
const STACK: usize = 64 << 10;

static WATCH: OnceLock<Watch> = OnceLock::new();
