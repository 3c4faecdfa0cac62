//! What the application receives: the request's body, and word of its end.
#![forbid(unsafe_code)]

use pyo3::{
    intern,
    prelude::*,
    types::{PyBytes, PyDict},
};

use super::{Exchange, bit};

impl Exchange {
    /// More of the body came.
    pub(crate) fn on_body(&self, py: Python<'_>, data: &[u8], end: bool) {
        self.body.borrow_mut().extend_from_slice(data);
        if end {
            self.set(bit::BODY_CAME);
        }
        self.wake(py);
    }

    /// The rest of the body will never come; a response still may go.
    pub(crate) fn on_body_lost(&self, py: Python<'_>) {
        self.set(bit::BODY_LOST);
        self.wake(py);
    }

    /// The message that `receive` waits for, once there is one.
    pub(crate) fn message<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let over = self.has(bit::DISCONNECTED | bit::BODY_LOST | bit::COMPLETE | bit::OVER)
            || (self.has(bit::HEAD_SENT) && self.worker.is_ending());
        if !over && !self.has(bit::BODY_TAKEN) {
            let ended = self.has(bit::BODY_CAME);
            let mut body = self.body.borrow_mut();
            if ended || !body.is_empty() {
                let bytes = PyBytes::new(py, &body);
                let taken = body.len();
                *body = Vec::new();
                drop(body);
                return Ok(Some(self.take_body(bytes, taken, ended)?));
            }
            drop(body);
            if self.has(bit::EXPECTS) {
                self.unset(bit::EXPECTS);
                self.worker.consumer().want_body(self.id);
            }
            return Ok(None);
        }
        if !over {
            return Ok(None);
        }
        let message = PyDict::new(py);
        message.set_item(intern!(py, "type"), intern!(py, "http.disconnect"))?;
        Ok(Some(message.into_any()))
    }

    fn take_body<'py>(
        &self,
        bytes: Bound<'py, PyBytes>,
        taken: usize,
        ended: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = bytes.py();
        if ended {
            self.set(bit::BODY_TAKEN);
        } else {
            self.worker.consumer().consumed(self.id, taken);
        }
        let message = PyDict::new(py);
        message.set_item(intern!(py, "type"), intern!(py, "http.request"))?;
        message.set_item(intern!(py, "body"), bytes)?;
        message.set_item(intern!(py, "more_body"), !ended)?;
        Ok(message.into_any())
    }
}
