//! A response head between the application's `http.response.start` and its first body message.
#![forbid(unsafe_code)]

use pyo3::{
    exceptions::{PyRuntimeError, PyTypeError},
    intern,
    prelude::*,
    types::{PyBytes, PyDict, PyInt, PyIterator, PyList, PyMemoryView, PyString, PyTuple},
};

use crate::errors::wrong_type;

/// Names, values and their table must fit one record of the bus.
const MAX_BYTES: usize = 60 * 1024;
/// What a field costs in the table.
const ENTRY: usize = 16;

/// Status and header fields, checked and copied: what the application does with its list afterwards
/// changes nothing.
#[derive(Debug, Default)]
pub(crate) struct Head {
    status: u16,
    content_length: i64,
    bytes: Vec<u8>,
    lengths: Vec<(u32, u32)>,
}

impl Head {
    /// Takes a `http.response.start` message.
    pub(crate) fn fill(&mut self, message: &Bound<'_, PyDict>) -> PyResult<()> {
        let py = message.py();
        self.bytes.clear();
        self.lengths.clear();
        self.content_length = -1;
        let status = message.get_item(intern!(py, "status"))?.ok_or_else(|| {
            error("'http.response.start' without 'status': give it an int from 200 to 599")
        })?;
        self.status = status
            .extract()
            .ok()
            .filter(|status| (200..600).contains(status))
            .ok_or_else(|| wrong_status(&status))?;
        let Some(headers) = message.get_item(intern!(py, "headers"))? else {
            return Ok(());
        };
        if let Ok(headers) = headers.cast_exact::<PyList>() {
            for field in headers {
                self.push_field(&field)?;
            }
        } else {
            for field in fields_of(&headers)? {
                self.push_field(&field?)?;
            }
        }
        if self.bytes.len() + self.lengths.len() * ENTRY > MAX_BYTES {
            return Err(error("the response's header fields exceed 60 KiB"));
        }
        Ok(())
    }

    /// A head of the server's own.
    pub(crate) fn plain(&mut self, status: u16) {
        self.bytes.clear();
        self.lengths.clear();
        self.content_length = -1;
        self.status = status;
        self.push(b"content-type", b"text/plain; charset=utf-8");
        if status == 503 {
            self.push(b"retry-after", b"1");
        }
    }

    /// The status.
    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    /// What the application says the body's length is; -1 if it does not.
    pub(crate) fn content_length(&self) -> i64 {
        self.content_length
    }

    /// The header fields.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        let mut rest = self.bytes.as_slice();
        self.lengths.iter().map(move |&(name_len, value_len)| {
            let (name, after) = rest.split_at(name_len as usize);
            let (value, after) = after.split_at(value_len as usize);
            rest = after;
            (name, value)
        })
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
        self.push(name, value);
        Ok(())
    }

    #[inline]
    fn push(&mut self, name: &[u8], value: &[u8]) {
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        // A record holds 64 KiB: what does not fit here is refused above.
        self.lengths.push((name.len() as u32, value.len() as u32));
    }
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
    std::str::from_utf8(digits)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| {
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
