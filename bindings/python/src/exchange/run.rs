//! The application's coroutine, from its first step to its end.
#![forbid(unsafe_code)]

use pyo3::{
    exceptions::{PyOSError, PyRuntimeError, asyncio::CancelledError},
    intern,
    prelude::*,
    types::{PyBytes, PyDict, PyString, PyTuple},
};

use super::{Exchange, bit};
use crate::{
    errors::ClientDisconnected,
    fork,
    raw::{Instance, Native, Step},
};

impl Exchange {
    /// The application's coroutine, called for at the first step.
    pub(super) fn coroutine<'py>(this: &Instance<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = this.py();
        if let Some(coroutine) = this.coroutine.borrow().as_ref() {
            return Ok(coroutine.bind(py).clone());
        }
        let scope = this
            .scope
            .borrow()
            .as_ref()
            .map(|scope| scope.clone_ref(py));
        let Some(scope) = scope else {
            return Err(PyRuntimeError::new_err("the exchange is over"));
        };
        let coroutine = this.worker.call_app(scope.bind(py), this.object())?;
        this.coroutine.replace(Some(coroutine.clone().unbind()));
        Ok(coroutine)
    }

    /// What a step of the application came to: sends what is to be sent, ends what has ended.
    pub(super) fn after<'py>(
        this: &Instance<'py, Self>,
        step: PyResult<Step<'py>>,
    ) -> PyResult<Step<'py>> {
        let py = this.py();
        this.unset(bit::STEPPING);
        if fork::is_fork() {
            this.leave_fork(py, &step);
        }
        match step {
            Ok(Step::Yield(future)) => {
                this.put_last(py, false);
                Ok(Step::Yield(future))
            }
            Ok(Step::Return(value)) => {
                this.end(py);
                Ok(Step::Return(value))
            }
            Err(error) => {
                this.fail(py, &error);
                if error.is_instance_of::<CancelledError>(py) {
                    return Err(error);
                }
                Ok(Step::Return(py.None().into_bound(py)))
            }
        }
    }

    /// Lets go of everything.
    pub(super) fn leave(&self, py: Python<'_>) {
        self.set(bit::OVER);
        self.worker.forget(py, self.id);
        self.clear();
        self.wake(py);
    }

    /// The application came back in a process that it has forked.
    #[cold]
    fn leave_fork(&self, py: Python<'_>, step: &PyResult<Step<'_>>) -> ! {
        if let Err(error) = step {
            if fork::is_exit(py, error) {
                fork::exit(py, error);
            }
            let text = self.named(
                py,
                "Exception in ASGI application, in a process that it has forked",
            );
            self.worker.log_error(py, &text, error);
        }
        fork::end(py)
    }

    /// The application returned.
    fn end(&self, py: Python<'_>) {
        if !self.put_last(py, true) {
            if !self.has(bit::COMPLETE | bit::DISCONNECTED) {
                self.complain(py);
            } else {
                self.worker.consumer().done(self.id);
            }
        }
        self.leave(py);
    }

    fn complain(&self, py: Python<'_>) {
        let started = self.has(bit::STARTED);
        // Who was cancelled could not.
        if !self.worker.is_giving_up() {
            let text = match started {
                true => "The ASGI application returned without completing its response",
                false => "The ASGI application returned without starting a response",
            };
            self.worker.log(py, &self.named(py, text));
        }
        match started {
            true => self.worker.consumer().abort(self.id),
            false => self.put_error(),
        }
    }

    /// The application raised.
    fn fail(&self, py: Python<'_>, error: &PyErr) {
        let gone = self.has(bit::DISCONNECTED);
        if !is_quiet(error.value(py).as_any(), gone, MAX_DEPTH) {
            let text = self.named(py, "Exception in ASGI application");
            self.worker.log_error(py, &text, error);
        }
        if !self.put_last(py, true) {
            if self.has(bit::COMPLETE) || gone {
                self.worker.consumer().done(self.id);
            } else if self.has(bit::HEAD_SENT) {
                self.worker.consumer().abort(self.id);
            } else {
                self.put_error();
            }
        }
        self.leave(py);
    }

    /// A line about this request: `text: GET /path`.
    fn named(&self, py: Python<'_>, text: &str) -> String {
        let scope = self.scope.borrow();
        let request = scope.as_ref().and_then(|scope| request(scope.bind(py)));
        match request {
            Some(request) => format!("{text}: {request}"),
            None => text.to_owned(),
        }
    }
}

/// Method and path in a scope, fit for a line, unless the application has made something else of them.
fn request(scope: &Bound<'_, PyAny>) -> Option<String> {
    let scope = scope.cast::<PyDict>().ok()?;
    let item = |name| scope.get_item(name).ok().flatten();
    let method = item("method")?;
    let path = item("raw_path")?;
    let method = method.cast::<PyString>().ok()?.to_str().ok()?.as_bytes();
    let path = path.cast::<PyBytes>().ok()?.as_bytes();
    let path = &path[..path.len().min(MOST_OF_A_PATH)];
    Some(format!("{} {}", printable(method), printable(path)))
}

fn printable(bytes: &[u8]) -> String {
    let each = bytes.iter().map(|byte| match byte.is_ascii_graphic() {
        true => char::from(*byte).to_string(),
        false => format!("\\x{byte:02X}"),
    });
    each.collect()
}

/// So much of a path is repeated in a line.
const MOST_OF_A_PATH: usize = 200;

/// Whether an exception says no more than that the client has gone, or that the request was
/// cancelled. Frameworks raise exceptions of their own from that, and put it into groups.
fn is_quiet(error: &Bound<'_, PyAny>, gone: bool, depth: u8) -> bool {
    let py = error.py();
    if error.is_instance_of::<PyOSError>() {
        return gone || error.is_instance_of::<ClientDisconnected>();
    }
    if error.is_instance_of::<CancelledError>() {
        return true;
    }
    if !gone || depth == 0 {
        return false;
    }
    let attribute = |name| error.getattr(name).ok().filter(|it| !it.is_none());
    // Before Python 3.11 groups are no built-in.
    if let Some(parts) = attribute(intern!(py, "exceptions"))
        && let Ok(parts) = parts.cast_into::<PyTuple>()
    {
        return !parts.is_empty() && parts.iter().all(|it| is_quiet(&it, gone, depth - 1));
    }
    let from =
        attribute(intern!(py, "__cause__")).or_else(|| attribute(intern!(py, "__context__")));
    from.is_some_and(|from| {
        from.is_instance_of::<ClientDisconnected>()
            || !from.is_instance_of::<PyOSError>()
                && !from.is_instance_of::<CancelledError>()
                && is_quiet(&from, gone, depth - 1)
    })
}

/// How far the origin of an exception is followed.
const MAX_DEPTH: u8 = 16;
