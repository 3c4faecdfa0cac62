//! What `receive()` and `send()` return. Most of the time there is nothing to wait for: then it is
//! over at the first step, without a future or a turn of the loop.
#![forbid(unsafe_code)]

use std::{cell::RefCell, ffi::CStr};

use pyo3::{exceptions::PyRuntimeError, prelude::*, types::PyTuple};

use crate::{
    errors::ClientDisconnected,
    exchange::{Exchange, Room},
    fork,
    raw::{Instance, Kept, Native, Step, Visitor, send_into, type_cell},
};

/// What an [`Answer`] waits for.
pub(crate) enum Awaits {
    /// So many turns of the loop, and then the word that the client has gone: whoever listens for
    /// that has cancelled the sender by then, as under servers whose `send()` raises nothing.
    Farewell(u8),
    /// A message of the exchange.
    Message(Kept<Exchange>),
    /// Nothing, however often it is awaited.
    Nothing,
    /// That the exchange may send on.
    Room(Kept<Exchange>),
}

impl Awaits {
    /// Middleware hands word of the client's end from task to task: each takes some turns.
    pub(crate) const FAREWELL: Self = Self::Farewell(16);
}

/// An awaitable; behaves as the coroutine of an `async def receive()` or `send()` would.
pub(crate) struct Answer {
    awaits: RefCell<Awaits>,
    /// The iterator of the future it waits for.
    future: RefCell<Option<Py<PyAny>>>,
    spent: RefCell<bool>,
}

impl Answer {
    /// A new one.
    pub(crate) fn create(py: Python<'_>, awaits: Awaits) -> PyResult<Bound<'_, PyAny>> {
        let answer = Self {
            awaits: RefCell::new(awaits),
            future: RefCell::new(None),
            spent: RefCell::new(false),
        };
        Ok(Instance::new(py, answer)?.into_object())
    }
}

impl Native for Answer {
    const NAME: &'static CStr = c"toolb._toolb.Answer";
    const DOC: &'static CStr = c"What receive() and send() return: await it.";
    const AWAITABLE: bool = true;

    type_cell!();

    fn step<'py>(this: &Instance<'py, Self>, value: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = this.py();
        if fork::is_fork() {
            fork::end(py);
        }
        let mut value = value.clone();
        loop {
            let future = this.future.borrow().as_ref().map(|it| it.clone_ref(py));
            if let Some(future) = future {
                match send_into(future.bind(py), &value) {
                    Ok(Step::Yield(future)) => return Ok(Step::Yield(future)),
                    Ok(Step::Return(_)) => {
                        this.future.replace(None);
                        value = py.None().into_bound(py);
                    }
                    Err(error) => {
                        this.clear();
                        return Err(error);
                    }
                }
            }
            let exchange = match &mut *this.awaits.borrow_mut() {
                Awaits::Farewell(turns) if *turns > 0 => {
                    *turns -= 1;
                    // A bare yield: the task's next step comes with the loop's next turn.
                    return Ok(Step::Yield(py.None().into_bound(py)));
                }
                Awaits::Farewell(_) => break,
                Awaits::Nothing => None,
                Awaits::Message(exchange) => Some((exchange.bind(py), true)),
                Awaits::Room(exchange) => Some((exchange.bind(py), false)),
            };
            let Some((exchange, message)) = exchange else {
                if *this.spent.borrow() {
                    return Err(PyRuntimeError::new_err(
                        "cannot await the same answer twice",
                    ));
                }
                return Ok(Step::Return(py.None().into_bound(py)));
            };
            let ready = if message {
                exchange.message(py)
            } else {
                let room = exchange.room();
                if room == Room::Never {
                    this.awaits.replace(Awaits::FAREWELL);
                    continue;
                }
                Ok((room == Room::Enough).then(|| py.None().into_bound(py)))
            };
            match ready {
                Ok(None) => {}
                Ok(Some(value)) => {
                    this.clear();
                    return Ok(Step::Return(value));
                }
                Err(error) => {
                    this.clear();
                    return Err(error);
                }
            }
            let future = exchange.waiter(py)?.try_iter()?;
            this.future.replace(Some(future.into_any().unbind()));
        }
        this.clear();
        Err(ClientDisconnected::new_err("the client has disconnected"))
    }

    fn throw<'py>(this: &Instance<'py, Self>, args: &Bound<'py, PyTuple>) -> PyResult<Step<'py>> {
        this.clear();
        // (exception), or the older (type, value, traceback).
        let first = args.get_item(0)?;
        let error = match args.get_item(1) {
            Ok(value) if !value.is_none() => value,
            _ => first,
        };
        Err(PyErr::from_value(error))
    }

    fn close(this: &Instance<'_, Self>) -> PyResult<()> {
        this.clear();
        Ok(())
    }

    fn traverse(&self, visit: &mut Visitor<'_>) {
        if let Ok(awaits) = self.awaits.try_borrow()
            && let Awaits::Message(exchange) | Awaits::Room(exchange) = &*awaits
        {
            visit.see(Some(exchange.object()));
        }
        if let Ok(future) = self.future.try_borrow() {
            visit.see(future.as_ref());
        }
    }

    /// Afterwards it is spent, except the one that never waits.
    fn clear(&self) {
        let awaits = self.awaits.replace(Awaits::Nothing);
        if !matches!(awaits, Awaits::Nothing) {
            self.spent.replace(true);
        }
        drop(self.future.take());
    }
}
