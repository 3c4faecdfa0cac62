//! The scope of a request. Whatever requests have in common is made once and used again: a scope is
//! a copy of a prepared dict with the rest filled in, and header fields that were seen lately are the
//! same tuples as then.
#![forbid(unsafe_code)]

use pyo3::{
    intern,
    prelude::*,
    types::{PyBytes, PyDict, PyList, PyString, PyTuple},
};
use toolb_core::consumer::Request;

/// Values longer than this are not worth remembering.
const MAX_KEPT: usize = 256;
/// Header fields remembered; a power of two.
const FIELDS: usize = 512;
/// Header names remembered; a power of two.
const NAMES: usize = 128;
/// Client addresses remembered; a power of two.
const CLIENTS: usize = 256;
/// Prepared dicts: one for each HTTP version, scheme and address in use.
const MAX_BASES: usize = 16;

/// What scopes are made of.
pub(crate) struct Scopes {
    /// What all scopes have in common.
    common: Py<PyDict>,
    /// The lifespan's state, of which each request gets a shallow copy.
    state: Option<Py<PyDict>>,
    root_path: String,
    bases: Vec<Base>,
    fields: Vec<Option<Field>>,
    names: Vec<Option<Py<PyBytes>>>,
    clients: Vec<Option<Client>>,
}

impl Scopes {
    /// `root_path` goes into every scope; `state` too, unless there is none.
    pub(crate) fn new(
        py: Python<'_>,
        root_path: &str,
        state: Option<Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let root_path = root_path.trim_end_matches('/');
        let asgi = PyDict::new(py);
        asgi.set_item("version", "3.0")?;
        // What other servers announce: from 2.4 on Starlette does not listen for clients that leave,
        // and a stream that waits would wait for ever.
        asgi.set_item("spec_version", "2.3")?;
        let common = PyDict::new(py);
        common.set_item(intern!(py, "type"), intern!(py, "http"))?;
        common.set_item(intern!(py, "asgi"), asgi)?;
        common.set_item(intern!(py, "root_path"), root_path)?;
        common.set_item(intern!(py, "method"), intern!(py, "GET"))?;
        for key in ["path", "raw_path", "query_string", "headers", "client"] {
            common.set_item(PyString::intern(py, key), py.None())?;
        }
        if state.is_some() {
            common.set_item(intern!(py, "state"), py.None())?;
        }
        Ok(Self {
            common: common.unbind(),
            state: state.map(Bound::unbind),
            root_path: root_path.to_owned(),
            bases: Vec::new(),
            fields: empty(FIELDS),
            names: empty(NAMES),
            clients: empty(CLIENTS),
        })
    }

    /// The scope of `request`.
    pub(crate) fn build<'py>(
        &mut self,
        py: Python<'py>,
        request: &Request,
    ) -> PyResult<Bound<'py, PyDict>> {
        let scope = self.base(py, request)?.copy()?;
        if request.method() != b"GET" {
            scope.set_item(intern!(py, "method"), method(py, request.method()))?;
        }
        scope.set_item(intern!(py, "headers"), self.headers(py, request)?)?;
        if let Some((address, port)) = request.peer() {
            scope.set_item(intern!(py, "client"), self.client(py, address, port)?)?;
        }
        if let Some(state) = &self.state {
            scope.set_item(intern!(py, "state"), state.bind(py).copy()?)?;
        }
        Ok(scope)
    }

    /// The prepared dict for what this request has in common with others. The target of the last one
    /// stays in it, as the next one often asks for the same.
    fn base<'py>(&mut self, py: Python<'py>, request: &Request) -> PyResult<Bound<'py, PyDict>> {
        let key = (request.version(), request.scheme(), request.server());
        let at = match self.bases.iter().position(|base| base.key() == key) {
            Some(at) => at,
            None => self.new_base(py, key)?,
        };
        let base = &mut self.bases[at];
        let dict = base.dict.bind(py).clone();
        if base.target != request.target() {
            // Path and query are parts of the target.
            base.target.clear();
            dict.set_item(intern!(py, "path"), path(py, &self.root_path, request))?;
            let raw_path = raw_path(py, &self.root_path, request);
            dict.set_item(intern!(py, "raw_path"), raw_path)?;
            let query = PyBytes::new(py, request.query());
            dict.set_item(intern!(py, "query_string"), query)?;
            base.target.extend_from_slice(request.target());
        }
        Ok(dict)
    }

    fn new_base(
        &mut self,
        py: Python<'_>,
        (version, scheme, (host, port)): (u8, u8, (&[u8], u16)),
    ) -> PyResult<usize> {
        let dict = self.common.bind(py).copy()?;
        let version_text = match version {
            10 => "1.0",
            20 => "2",
            _ => "1.1",
        };
        dict.set_item("http_version", version_text)?;
        dict.set_item("scheme", if scheme == 1 { "https" } else { "http" })?;
        let host_text = String::from_utf8_lossy(host);
        let port_or_none = (port != 0).then_some(port);
        dict.set_item("server", (host_text, port_or_none))?;
        if self.bases.len() == MAX_BASES {
            self.bases.remove(0);
        }
        self.bases.push(Base {
            version,
            scheme,
            host: host.to_vec(),
            port,
            target: Vec::new(),
            dict: dict.unbind(),
        });
        Ok(self.bases.len() - 1)
    }

    fn headers<'py>(&mut self, py: Python<'py>, request: &Request) -> PyResult<Bound<'py, PyList>> {
        let fields = request.fields();
        let mut tuples = Vec::with_capacity(request.field_count());
        for (name, value) in fields {
            tuples.push(self.field(py, name, value)?);
        }
        PyList::new(py, tuples)
    }

    fn field<'py>(
        &mut self,
        py: Python<'py>,
        name: &[u8],
        value: &[u8],
    ) -> PyResult<Bound<'py, PyTuple>> {
        let at = (mix(mix(0, name), value) >> 32) as usize & (FIELDS - 1);
        if let Some(field) = &self.fields[at]
            && field.value.as_bytes(py) == value
            && field.name.as_bytes(py) == name
        {
            return Ok(field.tuple.bind(py).clone());
        }
        let name = self.name(py, name);
        let value_object = PyBytes::new(py, value);
        let tuple = PyTuple::new(py, [&name, &value_object])?;
        if value.len() <= MAX_KEPT {
            self.fields[at] = Some(Field {
                name: name.unbind(),
                value: value_object.unbind(),
                tuple: tuple.clone().unbind(),
            });
        }
        Ok(tuple)
    }

    fn name<'py>(&mut self, py: Python<'py>, name: &[u8]) -> Bound<'py, PyBytes> {
        let kept = &mut self.names[(mix(0, name) >> 32) as usize & (NAMES - 1)];
        if let Some(kept) = kept
            && kept.as_bytes(py) == name
        {
            return kept.bind(py).clone();
        }
        let object = PyBytes::new(py, name);
        if name.len() <= MAX_KEPT {
            *kept = Some(object.clone().unbind());
        }
        object
    }

    fn client<'py>(
        &mut self,
        py: Python<'py>,
        address: &[u8],
        port: u16,
    ) -> PyResult<Bound<'py, PyTuple>> {
        // Ports of connections that live at the same time are often neighbours.
        let kept = &mut self.clients[usize::from(port) & (CLIENTS - 1)];
        if let Some(kept) = kept
            && kept.port == port
            && kept.address == address
        {
            return Ok(kept.tuple.bind(py).clone());
        }
        let tuple = (String::from_utf8_lossy(address), port).into_pyobject(py)?;
        *kept = Some(Client {
            address: address.to_vec(),
            port,
            tuple: tuple.clone().unbind(),
        });
        Ok(tuple)
    }
}

/// A prepared dict and what it is for.
struct Base {
    version: u8,
    scheme: u8,
    host: Vec<u8>,
    port: u16,
    /// Of the last request, whose path and query stand in `dict`.
    target: Vec<u8>,
    dict: Py<PyDict>,
}

impl Base {
    fn key(&self) -> (u8, u8, (&[u8], u16)) {
        (self.version, self.scheme, (&self.host, self.port))
    }
}

struct Field {
    name: Py<PyBytes>,
    value: Py<PyBytes>,
    tuple: Py<PyTuple>,
}

struct Client {
    address: Vec<u8>,
    port: u16,
    tuple: Py<PyTuple>,
}

/// The path as the application sees it: decoded, after the prefix it is mounted at. What is no UTF-8
/// is replaced, as uvicorn does.
fn path<'py>(py: Python<'py>, prefix: &str, request: &Request) -> Bound<'py, PyString> {
    let text = String::from_utf8_lossy(request.path());
    if prefix.is_empty() {
        return PyString::new(py, &text);
    }
    PyString::new(py, &format!("{prefix}{text}"))
}

fn raw_path<'py>(py: Python<'py>, prefix: &str, request: &Request) -> Bound<'py, PyBytes> {
    let raw = request.raw_path();
    if prefix.is_empty() {
        return PyBytes::new(py, raw);
    }
    PyBytes::new(py, &[prefix.as_bytes(), raw].concat())
}

fn empty<T>(len: usize) -> Vec<Option<T>> {
    let mut entries = Vec::new();
    entries.resize_with(len, || None);
    entries
}

fn method<'py>(py: Python<'py>, method: &[u8]) -> Bound<'py, PyString> {
    match method {
        b"POST" => intern!(py, "POST").clone(),
        b"PUT" => intern!(py, "PUT").clone(),
        b"PATCH" => intern!(py, "PATCH").clone(),
        b"DELETE" => intern!(py, "DELETE").clone(),
        b"HEAD" => intern!(py, "HEAD").clone(),
        b"OPTIONS" => intern!(py, "OPTIONS").clone(),
        other => PyString::new(py, &String::from_utf8_lossy(other)),
    }
}

/// A quick hash of the ends of `bytes` and their length: what differs in the middle only shares a
/// place.
#[inline]
fn mix(seed: u64, bytes: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
    let head = bytes.first_chunk::<8>().map_or_else(
        || {
            bytes
                .iter()
                .fold(0, |all, &byte| (all << 8) | u64::from(byte))
        },
        |head| u64::from_le_bytes(*head),
    );
    let tail = bytes
        .last_chunk::<8>()
        .map_or(0, |tail| u64::from_le_bytes(*tail));
    let all = head ^ tail.rotate_left(31) ^ (bytes.len() as u64) ^ seed;
    all.wrapping_mul(FACTOR)
}
