//! A loop's turn: when to serve, when to look at other descriptors, when to sleep. Under load the
//! bus is looked at in every turn, the other descriptors only now and then: each look is a system
//! call.
#![forbid(unsafe_code)]

use std::{
    cell::{Cell, OnceCell},
    time::{Duration, Instant},
};

use pyo3::{intern, prelude::*};

use crate::{fork, worker::Worker};

/// Descriptors are looked at this often at least, if the last look found something.
const BUSY: Duration = Duration::from_micros(100);
/// The same if it found nothing.
const QUIET: Duration = Duration::from_millis(1);

/// What the loop is like and when it last looked at descriptors.
#[derive(Default)]
pub(crate) struct Turn {
    watched: OnceCell<Watched>,
    polled: Cell<Option<Instant>>,
    found: Cell<bool>,
    armed: Cell<bool>,
}

/// asyncio's own queues, as far as the loop shows them.
struct Watched {
    event_loop: Py<PyAny>,
    ready: Option<Py<PyAny>>,
    scheduled: Option<Py<PyAny>>,
}

impl Turn {
    /// Remembers the loop.
    pub(crate) fn watch(&self, event_loop: &Bound<'_, PyAny>) {
        let py = event_loop.py();
        let queue = |name| {
            let queue = event_loop.getattr(name).ok();
            queue.map(Bound::unbind)
        };
        let _ = self.watched.set(Watched {
            ready: queue(intern!(py, "_ready").clone()),
            scheduled: queue(intern!(py, "_scheduled").clone()),
            event_loop: event_loop.clone().unbind(),
        });
    }

    /// Serves until there is nothing left, the loop has something to do, or it is time to look at
    /// other descriptors. Returns how long that look may take (-1: for ever), None for not at all.
    pub(crate) fn before_poll(
        &self,
        py: Python<'_>,
        worker: &'static Worker,
        timeout: Option<f64>,
    ) -> Option<f64> {
        let timeout = timeout.unwrap_or(-1.0);
        let Some(watched) = self.watched.get() else {
            return Some(timeout);
        };
        let timers = watched.timers(py);
        loop {
            let count = worker.drain(py);
            if timeout == 0.0 || watched.has_work(py, timers) {
                if count == 0 {
                    worker.consumer().flush(true);
                    return Some(0.0);
                }
                return (!self.looked_lately()).then_some(0.0);
            }
            if count == 0 {
                if worker.consumer().arm() {
                    self.armed.set(true);
                    return Some(timeout);
                }
            } else if !self.looked_lately() {
                return Some(0.0);
            }
        }
    }

    /// The loop has looked, and found something or not.
    pub(crate) fn after_poll(&self, py: Python<'_>, worker: &'static Worker, found: usize) {
        self.found.set(found > 0);
        if self.armed.replace(false) {
            self.polled.set(Some(Instant::now()));
            worker.drain(py);
        }
    }

    /// The same for a libuv loop, which polls in any case: true if it may block.
    pub(crate) fn before_uv_poll(
        &self,
        py: Python<'_>,
        worker: &'static Worker,
        has_work: &dyn Fn() -> bool,
    ) -> bool {
        if fork::is_fork() {
            fork::end_loop(py);
            return false;
        }
        self.polled.set(Some(Instant::now()));
        loop {
            let count = worker.drain(py);
            if has_work() {
                if count == 0 {
                    worker.consumer().flush(true);
                }
                return false;
            }
            if count == 0 {
                if worker.consumer().arm() {
                    return true;
                }
            } else if !self.looked_lately() {
                return false;
            }
        }
    }

    fn looked_lately(&self) -> bool {
        let now = Instant::now();
        let patience = if self.found.get() { BUSY } else { QUIET };
        let lately = self
            .polled
            .get()
            .is_some_and(|polled| now.duration_since(polled) < patience);
        if !lately {
            self.polled.set(Some(now));
        }
        lately
    }
}

impl Watched {
    fn timers(&self, py: Python<'_>) -> usize {
        len(py, self.scheduled.as_ref()).unwrap_or(0)
    }

    /// Whether applications have given the loop something to do. In doubt they have.
    fn has_work(&self, py: Python<'_>, timers: usize) -> bool {
        let Some(ready) = len(py, self.ready.as_ref()) else {
            return true;
        };
        if ready > 0 || self.timers(py) != timers || self.scheduled.is_none() {
            return true;
        }
        let stopping = self.event_loop.bind(py).getattr(intern!(py, "_stopping"));
        stopping.is_ok_and(|stopping| stopping.is_truthy().unwrap_or(true))
    }
}

fn len(py: Python<'_>, queue: Option<&Py<PyAny>>) -> Option<usize> {
    queue?.bind(py).len().ok()
}
