//! ASGI scopes (ASGI HTTP 2.5, "HTTP connection scope"), made with as few new objects as can be.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};
use toolb_core::consumer::Request;

/// Names and addresses that are kept at most; then the table starts anew.
const MOST_KEPT: usize = 1024;

/// Makes scopes. What does not change from one request to the next is made once.
pub(crate) struct Scopes {
    /// A scope with every key, in the order scopes have them.
    template: Py<PyDict>,
    state: Option<Py<PyDict>>,
    names: HashMap<Vec<u8>, Py<PyBytes>>,
    addresses: HashMap<(Vec<u8>, u16), Py<PyTuple>>,
    methods: HashMap<Vec<u8>, Py<PyString>>,
    server: Option<(Vec<u8>, u16, Py<PyTuple>)>,
    /// The fields of the last request: clients repeat themselves.
    last: Vec<LastField>,
}

struct LastField {
    name: Vec<u8>,
    value: Vec<u8>,
    pair: Py<PyTuple>,
}

impl Scopes {
    pub(crate) fn new(
        py: Python<'_>,
        root_path: &str,
        state: Option<Py<PyDict>>,
    ) -> PyResult<Self> {
        let asgi = PyDict::new(py);
        asgi.set_item("version", "3.0")?;
        asgi.set_item("spec_version", "2.5")?;
        let template = PyDict::new(py);
        template.set_item(intern!(py, "type"), intern!(py, "http"))?;
        template.set_item(intern!(py, "asgi"), asgi)?;
        template.set_item(intern!(py, "http_version"), intern!(py, "1.1"))?;
        template.set_item(intern!(py, "server"), py.None())?;
        template.set_item(intern!(py, "client"), py.None())?;
        template.set_item(intern!(py, "scheme"), intern!(py, "http"))?;
        template.set_item(intern!(py, "method"), py.None())?;
        template.set_item(intern!(py, "root_path"), PyString::new(py, root_path))?;
        template.set_item(intern!(py, "path"), py.None())?;
        template.set_item(intern!(py, "raw_path"), py.None())?;
        template.set_item(intern!(py, "query_string"), PyBytes::new(py, b""))?;
        template.set_item(intern!(py, "headers"), py.None())?;
        if state.is_some() {
            template.set_item(intern!(py, "state"), py.None())?;
        }
        Ok(Self {
            template: template.unbind(),
            state,
            names: HashMap::new(),
            addresses: HashMap::new(),
            methods: HashMap::new(),
            server: None,
            last: Vec::new(),
        })
    }

    /// A fresh scope for a request.
    pub(crate) fn make<'py>(
        &mut self,
        py: Python<'py>,
        request: &Request,
    ) -> PyResult<Bound<'py, PyDict>> {
        // A copy of a dictionary of the same keys is a copy of its table.
        let scope = self.template.bind(py).copy()?;
        if request.version() == 10 {
            scope.set_item(intern!(py, "http_version"), intern!(py, "1.0"))?;
        }
        let (host, port) = request.server();
        scope.set_item(intern!(py, "server"), self.server(py, host, port)?)?;
        if let Some((host, port)) = request.peer() {
            scope.set_item(intern!(py, "client"), self.client(py, host, port)?)?;
        }
        scope.set_item(intern!(py, "method"), self.method(py, request.method()))?;
        scope.set_item(intern!(py, "path"), text(py, request.path()))?;
        scope.set_item(
            intern!(py, "raw_path"),
            PyBytes::new(py, request.raw_path()),
        )?;
        let query = request.query();
        if !query.is_empty() {
            scope.set_item(intern!(py, "query_string"), PyBytes::new(py, query))?;
        }
        scope.set_item(intern!(py, "headers"), self.headers(py, request)?)?;
        if let Some(state) = &self.state {
            scope.set_item(intern!(py, "state"), state.bind(py).copy()?)?;
        }
        Ok(scope)
    }

    fn headers<'py>(&mut self, py: Python<'py>, request: &Request) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for (at, (name, value)) in request.fields().enumerate() {
            if let Some(last) = self.last.get(at)
                && last.value == value
                && last.name == name
            {
                list.append(last.pair.bind(py))?;
                continue;
            }
            let pair = (self.name(py, name), PyBytes::new(py, value)).into_pyobject(py)?;
            list.append(&pair)?;
            let seen = LastField {
                name: name.to_vec(),
                value: value.to_vec(),
                pair: pair.unbind(),
            };
            // Requests differ in the number of fields, so the place may be the next one.
            match at < self.last.len() {
                true => self.last[at] = seen,
                false => self.last.push(seen),
            }
        }
        Ok(list)
    }

    fn name<'py>(&mut self, py: Python<'py>, name: &[u8]) -> Bound<'py, PyBytes> {
        if let Some(known) = self.names.get(name) {
            return known.bind(py).clone();
        }
        if self.names.len() >= MOST_KEPT {
            self.names.clear();
        }
        let object = PyBytes::new(py, name);
        self.names.insert(name.to_vec(), object.clone().unbind());
        object
    }

    fn method<'py>(&mut self, py: Python<'py>, method: &[u8]) -> Bound<'py, PyString> {
        if let Some(known) = self.methods.get(method) {
            return known.bind(py).clone();
        }
        if self.methods.len() >= MOST_KEPT {
            self.methods.clear();
        }
        let object = text(py, method);
        self.methods
            .insert(method.to_vec(), object.clone().unbind());
        object
    }

    fn client<'py>(
        &mut self,
        py: Python<'py>,
        host: &[u8],
        port: u16,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let key = (host.to_vec(), port);
        if let Some(known) = self.addresses.get(&key) {
            return Ok(known.bind(py).clone());
        }
        if self.addresses.len() >= MOST_KEPT {
            self.addresses.clear();
        }
        let object = (text(py, host), port).into_pyobject(py)?;
        self.addresses.insert(key, object.clone().unbind());
        Ok(object)
    }

    /// Host and port, or the path of a Unix socket and None.
    fn server<'py>(
        &mut self,
        py: Python<'py>,
        host: &[u8],
        port: u16,
    ) -> PyResult<Bound<'py, PyTuple>> {
        if let Some((known_host, known_port, object)) = &self.server
            && known_host == host
            && *known_port == port
        {
            return Ok(object.bind(py).clone());
        }
        let object = match port {
            0 => (text(py, host), py.None()).into_pyobject(py)?,
            port => (text(py, host), port).into_pyobject(py)?,
        };
        self.server = Some((host.to_vec(), port, object.clone().unbind()));
        Ok(object)
    }
}

/// Bytes of a client as text; what is not UTF-8 becomes replacement characters.
fn text<'py>(py: Python<'py>, bytes: &[u8]) -> Bound<'py, PyString> {
    PyString::new(py, &String::from_utf8_lossy(bytes))
}
