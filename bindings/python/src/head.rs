//! A response head between the application's `http.response.start` and its first body message.
#![forbid(unsafe_code)]

use pyo3::{
    exceptions::{PyRuntimeError, PyTypeError},
    intern,
    prelude::*,
    types::{PyBytes, PyDict, PyInt, PyIterator, PyList, PyMemoryView, PyString, PyTuple},
};
use toolb_core::consumer::EncodedHead;

use crate::errors::wrong_type;

/// The fields must fit one record of the bus.
const MAX_BYTES: usize = 60 * 1024;
/// Heads with more fields are not remembered.
const MAX_KEPT: usize = 16;

/// Status and header fields, checked and encoded: what the application does with its list afterwards
/// changes nothing.
#[derive(Debug, Default)]
pub(crate) struct Head {
    content_length: i64,
    encoded: EncodedHead,
    /// The fields that `encoded` was made of, if all of them are tuples of `bytes`, which never change:
    /// an application that gives the same ones again has them checked already.
    kept: Vec<Py<PyTuple>>,
}

impl Head {
    /// Takes a `http.response.start` message.
    pub(crate) fn fill(&mut self, message: &Bound<'_, PyDict>) -> PyResult<()> {
        let py = message.py();
        let status = message.get_item(intern!(py, "status"))?.ok_or_else(|| {
            error("'http.response.start' without 'status': give it an int from 200 to 599")
        })?;
        let status = status
            .extract()
            .ok()
            .filter(|status| (200..600).contains(status))
            .ok_or_else(|| wrong_status(&status))?;
        let Some(headers) = message.get_item(intern!(py, "headers"))? else {
            self.begin(status, 0);
            return Ok(());
        };
        let listed;
        let headers = match headers.cast_exact::<PyList>() {
            Ok(headers) => headers,
            Err(_) => {
                listed = PyList::empty(py);
                for field in fields_of(&headers)? {
                    listed.append(field?)?;
                }
                &listed
            }
        };
        if self.has_kept(headers) {
            self.encoded.set_status(status);
            return Ok(());
        }
        self.begin(status, headers.len());
        let outcome = self.push_all(headers);
        if outcome.is_err() {
            self.kept.clear();
        }
        outcome
    }

    /// A head of the server's own.
    pub(crate) fn plain(&mut self, status: u16) {
        self.begin(status, 2);
        self.encoded
            .push(b"content-type", b"text/plain; charset=utf-8");
        if status == 503 {
            self.encoded.push(b"retry-after", b"1");
        }
    }

    /// What the application says the body's length is; -1 if it does not.
    pub(crate) fn content_length(&self) -> i64 {
        self.content_length
    }

    /// What the engine gets.
    pub(crate) fn encoded(&mut self) -> &mut EncodedHead {
        &mut self.encoded
    }

    fn begin(&mut self, status: u16, fields: usize) {
        self.kept.clear();
        self.content_length = -1;
        self.encoded.begin(status, fields);
    }

    /// Whether these are the fields that are encoded.
    #[inline]
    fn has_kept(&self, headers: &Bound<'_, PyList>) -> bool {
        !self.kept.is_empty()
            && self.kept.len() == headers.len()
            && headers
                .iter()
                .zip(&self.kept)
                .all(|(one, kept)| one.is(kept))
    }

    fn push_all(&mut self, headers: &Bound<'_, PyList>) -> PyResult<()> {
        let mut all_stay = headers.len() <= MAX_KEPT;
        for field in headers {
            self.push_field(&field)?;
            match field.cast_into_exact::<PyTuple>() {
                Ok(pair) if all_stay && stays(&pair) => self.kept.push(pair.unbind()),
                _ => all_stay = false,
            }
        }
        if !all_stay {
            self.kept.clear();
        }
        if self.encoded.len() > MAX_BYTES {
            return Err(error("the response's header fields exceed 60 KiB"));
        }
        Ok(())
    }

    #[inline]
    fn push_field(&mut self, field: &Bound<'_, PyAny>) -> PyResult<()> {
        if let Ok(pair) = field.cast_exact::<PyTuple>()
            && pair.len() == 2
        {
            let (name, value) = (pair.get_borrowed_item(0)?, pair.get_borrowed_item(1)?);
            return self.push_objects(&name, &value);
        }
        let mut items = field.try_iter().map_err(|_| wrong_field(field))?;
        let (Some(name), Some(value), None) = (items.next(), items.next(), items.next()) else {
            return Err(wrong_field(field));
        };
        self.push_objects(&name?, &value?)
    }

    #[inline]
    fn push_objects(&mut self, name: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let (Ok(name), Ok(value)) = (name.cast::<PyBytes>(), value.cast::<PyBytes>()) else {
            let (Some(name), Some(value)) = (copy_of(name)?, copy_of(value)?) else {
                return Err(wrong_pair(name, value));
            };
            return self.push_bytes(name.as_bytes(), value.as_bytes());
        };
        self.push_bytes(name.as_bytes(), value.as_bytes())
    }

    #[inline]
    fn push_bytes(&mut self, name: &[u8], value: &[u8]) -> PyResult<()> {
        if name.is_empty() || !name.iter().all(|&byte| TOKEN[usize::from(byte)]) {
            return Err(error(format!(
                "invalid header name {:?} in {HEADERS}",
                String::from_utf8_lossy(name)
            )));
        }
        if !value.iter().fold(true, |good, &byte| good & is_value(byte)) {
            return Err(error(format!(
                "invalid value of header {:?} in {HEADERS}: it has a line break or another control \
                 character",
                String::from_utf8_lossy(name)
            )));
        }
        if name.len() == 14 && name.eq_ignore_ascii_case(b"content-length") {
            let length = parse_length(value)?;
            if self.content_length == length {
                // Said twice by an application that hands on what another server has sent.
                return Ok(());
            }
            if self.content_length >= 0 {
                let other = self.content_length;
                return Err(error(format!(
                    "two values of \"content-length\" in {HEADERS}: {other} and {length}"
                )));
            }
            self.content_length = length;
        }
        match self.encoded.push(name, value) {
            true => Ok(()),
            // By a field whose parts are made while it is looked at.
            false => Err(error(format!(
                "{HEADERS} became longer while they were read"
            ))),
        }
    }
}

/// Whether a field is the same for ever.
#[inline]
fn stays(pair: &Bound<'_, PyTuple>) -> bool {
    let is_bytes = |item: Borrowed<'_, '_, PyAny>| item.is_exact_instance_of::<PyBytes>();
    pair.iter_borrowed().all(is_bytes)
}

/// Goes through header fields that are not in a list.
fn fields_of<'py>(headers: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyIterator>> {
    let wrong = |mend| wrong_type(HEADERS, "a list of pairs of bytes", headers, mend);
    if headers.cast::<PyDict>().is_ok_and(|dict| !dict.is_empty()) {
        return Err(wrong("give it list(headers.items())"));
    }
    let is_text = headers.is_instance_of::<PyString>() || headers.is_instance_of::<PyBytes>();
    match headers.try_iter() {
        Ok(fields) if !is_text => Ok(fields),
        _ if headers.is_none() => Err(wrong("leave it out if there are none")),
        _ => Err(wrong(r#"such as [(b"content-type", b"text/plain")]"#)),
    }
}

/// The bytes of what holds some, but is not `bytes`.
#[cold]
fn copy_of<'py>(object: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyBytes>>> {
    if PyMemoryView::from(object).is_err() {
        return Ok(None);
    }
    let bytes = object.py().get_type::<PyBytes>().call1((object,))?;
    Ok(Some(bytes.cast_into()?))
}

/// What a value may have (RFC 9110, 5.5).
#[inline]
fn is_value(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7F)
}

#[cold]
fn wrong_status(status: &Bound<'_, PyAny>) -> PyErr {
    if status.is_instance_of::<PyInt>() {
        error(format!("{STATUS} must be from 200 to 599, not {status}"))
    } else {
        wrong_type(STATUS, "an int", status, "such as 200")
    }
}

#[cold]
fn wrong_field(field: &Bound<'_, PyAny>) -> PyErr {
    PyTypeError::new_err(format!(
        r#"each of {HEADERS} must be a pair of bytes, not {field:?}: such as (b"content-type", b"text/plain")"#
    ))
}

#[cold]
fn wrong_pair(name: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyErr {
    PyTypeError::new_err(format!(
        "names and values in {HEADERS} must be bytes, not {name:?}: {value:?}; encode them, as \
         text.encode('latin-1') does"
    ))
}

fn error(text: impl Into<String>) -> PyErr {
    PyRuntimeError::new_err(text.into())
}

fn parse_length(value: &[u8]) -> PyResult<i64> {
    let digits = value.trim_ascii();
    let append = |number: i64, digit: &u8| match digit {
        b'0'..=b'9' => number.checked_mul(10)?.checked_add((digit - b'0').into()),
        _ => None,
    };
    let number = digits.iter().try_fold(0, append);
    number.filter(|_| !digits.is_empty()).ok_or_else(|| {
        error(format!(
            "invalid content-length {:?} in {HEADERS}: it is a number",
            String::from_utf8_lossy(value)
        ))
    })
}

const STATUS: &str = "'status' of 'http.response.start'";
const HEADERS: &str = "'headers' of 'http.response.start'";
/// The characters of a token (RFC 9110, 5.6.2).
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let it = byte as u8;
        table[byte] = it.is_ascii_alphanumeric()
            || matches!(
                it,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        byte += 1;
    }
    table
};
