//! Those who wait in `receive` or `send` until something happens.
#![forbid(unsafe_code)]

use pyo3::{intern, prelude::*};

use super::Exchange;

impl Exchange {
    /// A future that is resolved when anything happens to this exchange.
    pub(crate) fn waiter<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let future = self.worker.new_future(py)?;
        let full = |waiters: &Vec<_>| !waiters.is_empty() && waiters.len() == waiters.capacity();
        if full(&self.waiters.borrow()) {
            self.forget_cancelled(py);
        }
        let mut waiters = self.waiters.borrow_mut();
        waiters.push(future.clone().unbind());
        Ok(future)
    }

    /// Has whoever waits for this exchange look again.
    #[inline]
    pub(crate) fn wake(&self, py: Python<'_>) {
        if !self.waiters.borrow().is_empty() {
            self.wake_all(py);
        }
    }

    /// Lets go of those who wait no more, before the list grows: an application may listen, and
    /// cease to, as often as it likes.
    #[cold]
    fn forget_cancelled(&self, py: Python<'_>) {
        let is_done = |future: &Py<PyAny>| {
            let done = future.bind(py).call_method0(intern!(py, "done"));
            done.and_then(|done| done.is_truthy()).unwrap_or(false)
        };
        let mut left = self.waiters.take();
        left.retain(|future| !is_done(future));
        // Other code may have run meanwhile.
        left.append(&mut self.waiters.borrow_mut());
        self.waiters.replace(left);
    }

    #[cold]
    fn wake_all(&self, py: Python<'_>) {
        for future in self.waiters.take() {
            let future = future.bind(py);
            let resolved = future
                .call_method0(intern!(py, "done"))
                .and_then(|done| done.is_truthy())
                .and_then(|done| {
                    if !done {
                        future.call_method1(intern!(py, "set_result"), (py.None(),))?;
                    }
                    Ok(())
                });
            if let Err(error) = resolved {
                error.write_unraisable(py, Some(future));
            }
        }
    }
}
