//! What comes over the bus, handed to the exchanges that it is for.
#![forbid(unsafe_code)]

use pyo3::prelude::*;
use toolb_core::consumer::{Event, ExchangeId, Request};

use super::{Worker, not_serving};
use crate::{exchange::Exchange, fork, raw::Instance};

impl Worker {
    /// Serves what has come, at most a budget's worth. Returns how many events that were.
    pub(crate) fn drain(&'static self, py: Python<'_>) -> usize {
        if fork::is_fork() {
            fork::end(py);
        }
        let mut events = self.events.take();
        let polled = self.consumer().poll(BUDGET, &mut events);
        let count = polled.unwrap_or_else(|error| self.break_off(py, &error.to_string()));
        for event in events.drain(..) {
            self.handle(py, event);
        }
        self.events.replace(events);
        if count > 0 {
            self.consumer().flush(false);
        }
        // What applications were done with may have found its room just now.
        if self.when_idle.borrow().is_some() {
            self.look_whether_idle(py);
        }
        count
    }

    /// The bus cannot be used any more.
    #[cold]
    fn break_off(&self, py: Python<'_>, why: &str) -> usize {
        if !self.broken.replace(true) {
            let told = self
                .app()
                .and_then(|app| app.call_soon.bind(py).call1((&app.broken, why)));
            if let Err(error) = told {
                error.write_unraisable(py, None);
            }
        }
        0
    }

    #[inline]
    fn handle(&'static self, py: Python<'_>, event: Event) {
        match event {
            Event::Request {
                id,
                request,
                more_body,
            } => {
                if let Err(error) = self.begin(py, id, &request, more_body) {
                    error.write_unraisable(py, None);
                    self.consumer().abort(id);
                    self.forget(py, id);
                }
                self.consumer().recycle(request.into_bytes());
            }
            // It takes none.
            Event::Stream { .. } => {}
            Event::Body { id, data, end } => {
                if let Some(exchange) = self.find(py, id) {
                    exchange.on_body(py, &data, end);
                }
                self.consumer().recycle(data);
            }
            Event::Disconnected { id } => match self.find(py, id) {
                Some(exchange) => exchange.on_disconnect(py),
                None => self.consumer().done(id),
            },
            Event::RequestAborted { id } => {
                if let Some(exchange) = self.find(py, id) {
                    exchange.on_body_lost(py);
                }
            }
            Event::Writable { id } => {
                if let Some(exchange) = self.find(py, id) {
                    exchange.on_writable(py);
                }
            }
        }
    }

    /// Starts a request and runs the application up to where it first waits.
    #[inline]
    fn begin(
        &'static self,
        py: Python<'_>,
        id: ExchangeId,
        request: &Request,
        more_body: bool,
    ) -> PyResult<()> {
        if !self.consumer().start(id) {
            return Ok(());
        }
        self.served.set(self.served.get() + 1);
        let scope = match self.scopes.borrow_mut().as_mut() {
            Some(scopes) => scopes.build(py, request)?,
            None => return Err(not_serving()),
        };
        let exchange = Exchange::new(
            self,
            id,
            scope,
            request.body(),
            more_body,
            request.expects_continue(),
        );
        let exchange = Instance::new(py, exchange)?;
        let kept = exchange.clone().unbind();
        let former = self.live.borrow_mut()[usize::from(id.slot)].replace(kept);
        drop(former);
        let task = self
            .spawner()?
            .spawn(exchange.object(), || exchange.is_over())?;
        if !exchange.is_over() {
            exchange.keep_task(task.unbind());
        }
        Ok(())
    }

    fn find<'py>(&self, py: Python<'py>, id: ExchangeId) -> Option<Instance<'py, Exchange>> {
        let live = self.live.borrow();
        let exchange = live.get(usize::from(id.slot))?.as_ref()?.bind(py);
        (exchange.id() == id).then_some(exchange)
    }
}

/// Events taken from the bus before the loop gets its turn again.
const BUDGET: usize = 64;
