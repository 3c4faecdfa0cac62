//! Floor 2: method and path matching.
//!
//! One tree of patterns for each method, so that `GET /users/{id}` and `POST /users/me` do not
//! get into each other's way.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fmt;

/// Finds the value that belongs to a method and a path.
#[derive(Clone, Debug)]
pub struct Router<T> {
    /// In order of first insertion; `*`, for every method, has a tree of its own.
    methods: Vec<(String, matchit::Router<T>)>,
    any: matchit::Router<T>,
    len: usize,
}

impl<T> Default for Router<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Router<T> {
    /// A router without routes.
    pub fn new() -> Self {
        Self {
            methods: Vec::new(),
            any: matchit::Router::new(),
            len: 0,
        }
    }

    /// Adds a route. `method` is in upper case, or `*` for every method. In `pattern`, `{id}`
    /// stands for a part of the path between two slashes and `{*rest}` for all that is left;
    /// `{{` and `}}` stand for the braces themselves.
    pub fn insert(&mut self, method: &str, pattern: &str, value: T) -> Result<(), RouteError> {
        check_method(method)?;
        check_pattern(pattern)?;
        let tree = match method {
            "*" => &mut self.any,
            _ => {
                let known = self.methods.iter().position(|(name, _)| name == method);
                let at = known.unwrap_or_else(|| {
                    self.methods
                        .push((method.to_owned(), matchit::Router::new()));
                    self.methods.len() - 1
                });
                &mut self.methods[at].1
            }
        };
        match tree.insert(pattern, value) {
            Ok(()) => {
                self.len += 1;
                Ok(())
            }
            Err(error) => Err(explain(method, pattern, error)),
        }
    }

    /// Finds the route for a path without query. HEAD is answered by GET routes where it has
    /// none of its own; routes of the method itself go before those for every method.
    pub fn find<'k, 'v>(&'k self, method: &[u8], path: &'v str) -> Match<'k, 'v, T> {
        let tree = |name: &[u8]| {
            let found = self
                .methods
                .iter()
                .find(|(known, _)| known.as_bytes() == name);
            found.map(|(_, tree)| tree)
        };
        let fallback = match method {
            b"HEAD" => tree(b"GET"),
            _ => None,
        };
        let candidates = [tree(method), fallback, Some(&self.any)];
        for tree in candidates.into_iter().flatten() {
            if let Ok(found) = tree.at(path) {
                return Match::Found(found.value, Params(found.params));
            }
        }
        match self.allowed(path) {
            Some(allow) => Match::MethodNotAllowed { allow },
            None => Match::NotFound,
        }
    }

    /// The same for a path of any bytes: no route matches one that is not UTF-8.
    #[inline]
    pub fn find_bytes<'k, 'v>(&'k self, method: &[u8], path: &'v [u8]) -> Match<'k, 'v, T> {
        match std::str::from_utf8(path) {
            Ok(path) => self.find(method, path),
            Err(_) => Match::NotFound,
        }
    }

    /// Whether there are no routes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[cold]
    fn allowed(&self, path: &str) -> Option<String> {
        let mut allow = String::new();
        let mut add = |name: &str| {
            if !allow.is_empty() {
                allow.push_str(", ");
            }
            allow.push_str(name);
        };
        let has = |name: &str| {
            let mut matching = self.methods.iter().filter(|(known, _)| known == name);
            matching.any(|(_, tree)| tree.at(path).is_ok())
        };
        for (name, tree) in &self.methods {
            if tree.at(path).is_err() {
                continue;
            }
            add(name);
            if name == "GET" && !has("HEAD") {
                add("HEAD");
            }
        }
        (!allow.is_empty()).then_some(allow)
    }
}

/// What [`Router::find`] found.
#[derive(Debug)]
pub enum Match<'k, 'v, T> {
    /// The value of the route, and what its parameters stand for.
    Found(&'k T, Params<'k, 'v>),
    /// There are routes for this path, but for other methods.
    MethodNotAllowed {
        /// Those methods, as the value of an Allow field.
        allow: String,
    },
    /// There is no route for this path.
    NotFound,
}

/// The parts of a path that parameters stand for, in order.
#[derive(Clone, Debug)]
pub struct Params<'k, 'v>(matchit::Params<'k, 'v>);

impl<'k, 'v> Params<'k, 'v> {
    /// What the parameter of this name stands for.
    pub fn get(&self, name: &str) -> Option<&'v str> {
        self.0.get(name)
    }

    /// Names and values, in the order of the path.
    pub fn iter(&self) -> impl Iterator<Item = (&'k str, &'v str)> {
        self.0.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Why a route was not added, as a sentence for whoever wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteError(String);

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for RouteError {}

fn explain(method: &str, pattern: &str, error: matchit::InsertError) -> RouteError {
    use matchit::InsertError::{Conflict, InvalidCatchAll, InvalidParamSegment};
    let why = match error {
        Conflict { with } if with == pattern => "it is there already".to_owned(),
        Conflict { with } => format!("it conflicts with {with}, which means the same paths"),
        InvalidParamSegment => "one parameter at most between two slashes".to_owned(),
        InvalidCatchAll => "{*rest} must come last and right after a slash".to_owned(),
        _ => "a parameter is a name in braces, as in /user/{id}".to_owned(),
    };
    RouteError(format!("route {method} {pattern}: {why}"))
}

fn check_method(method: &str) -> Result<(), RouteError> {
    if method == "*" {
        return Ok(());
    }
    if method.bytes().any(|byte| byte.is_ascii_lowercase()) {
        let upper = method.to_ascii_uppercase();
        return Err(RouteError(format!(
            "method {method:?} must be written in upper case: {upper:?}"
        )));
    }
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if method.is_empty() || !method.bytes().all(valid) {
        return Err(RouteError(format!(
            "{method:?} is not a method; write one such as \"GET\", or \"*\" for every method"
        )));
    }
    Ok(())
}

/// Refuses what is a parameter in other routers' languages and would match literally here.
fn check_pattern(pattern: &str) -> Result<(), RouteError> {
    let fail = |text: String| Err(RouteError(format!("route {pattern}: {text}")));
    if !pattern.starts_with('/') {
        return Err(RouteError(format!(
            "route {pattern:?} must begin with a slash"
        )));
    }
    if pattern.contains(['?', '#']) || pattern.contains(|c: char| c.is_ascii_control() || c == ' ')
    {
        return fail("a pattern is a path, without query, fragment, spaces or controls".to_owned());
    }
    let mut names = Vec::new();
    for part in pattern.split('/') {
        if let Some(name) = part.strip_prefix(':') {
            return fail(format!("write {{{name}}} instead of :{name}"));
        }
        if let Some(name) = part.strip_prefix('<') {
            // <int:id> and <id> alike.
            let name = name.trim_end_matches('>');
            let name = name.rsplit(':').next().unwrap_or(name);
            return fail(format!("write {{{name}}} instead of {part}"));
        }
        if let Some(name) = part.strip_prefix('*') {
            let name = if name.is_empty() { "rest" } else { name };
            return fail(format!("write {{*{name}}} instead of {part}"));
        }
        let plain = part.replace("{{", "").replace("}}", "");
        if let Some((name, kind)) = plain.split_once(':')
            && let Some(name) = name.rsplit('{').next().filter(|_| name.contains('{'))
        {
            let better = match kind.starts_with("path") {
                true => format!("{{*{name}}}"),
                false => format!("{{{name}}}"),
            };
            return fail(format!("parameters have no type here: write {better}"));
        }
        let name = plain.split_once('{').and_then(|(_, rest)| {
            let (name, _) = rest.split_once('}')?;
            Some(name.trim_start_matches('*').to_owned())
        });
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            if names.contains(&name) {
                return fail(format!(
                    "it has two parameters named {name}, and only one could be asked for"
                ));
            }
            names.push(name);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Router<&'static str> {
        let mut router = Router::new();
        for (method, pattern, value) in [
            ("GET", "/", "index"),
            ("GET", "/user/{id}", "user"),
            ("POST", "/user/me", "me"),
            ("POST", "/user", "new"),
            ("*", "/files/{*path}", "files"),
            ("HEAD", "/probe", "probe head"),
            ("GET", "/probe", "probe"),
            ("DELETE", "/user/{name}", "remove"),
        ] {
            router.insert(method, pattern, value).expect(pattern);
        }
        router
    }

    fn show(router: &Router<&'static str>, method: &str, path: &str) -> String {
        match router.find(method.as_bytes(), path) {
            Match::Found(value, params) => {
                let params: String = params.iter().map(|(k, v)| format!(" {k}={v}")).collect();
                format!("{value}{params}")
            }
            Match::MethodNotAllowed { allow } => format!("405 {allow}"),
            Match::NotFound => "404".to_owned(),
        }
    }

    #[test]
    fn finds_by_method_and_path() {
        let router = sample();
        for (method, path, wanted) in [
            ("GET", "/", "index"),
            ("HEAD", "/", "index"),
            ("GET", "/user/42", "user id=42"),
            ("GET", "/user/me", "user id=me"),
            ("POST", "/user/me", "me"),
            ("DELETE", "/user/42", "remove name=42"),
            ("PUT", "/user/42", "405 GET, HEAD, DELETE"),
            ("PUT", "/user/me", "405 GET, HEAD, POST, DELETE"),
            ("GET", "/user", "405 POST"),
            ("BREW", "/files/a/b.txt", "files path=a/b.txt"),
            ("HEAD", "/probe", "probe head"),
            ("PUT", "/probe", "405 GET, HEAD"),
            ("GET", "/user/", "404"),
            ("GET", "/nothing", "404"),
            ("get", "/", "405 GET, HEAD"),
            ("GET", "", "404"),
            ("GET", "*", "404"),
        ] {
            assert_eq!(show(&router, method, path), wanted, "{method} {path}");
        }
    }

    #[test]
    fn a_path_of_other_bytes_is_found_nowhere() {
        let router = sample();
        let found = |path| matches!(router.find_bytes(b"GET", path), Match::Found(..));
        assert!(found(b"/user/42"));
        assert!(!found(b"/user/\xff"));
    }

    #[test]
    fn parameters_by_name() {
        let mut router = Router::new();
        router.insert("GET", "/a/{b}/c/{d}", ()).unwrap();
        let Match::Found((), params) = router.find(b"GET", "/a/1/c/2") else {
            panic!("not found");
        };
        assert_eq!((params.get("b"), params.get("d")), (Some("1"), Some("2")));
        assert_eq!(
            (params.get("x"), params.len(), params.is_empty()),
            (None, 2, false)
        );
    }

    #[test]
    fn refuses_with_a_hint() {
        let mut router = sample();
        for (method, pattern, hint) in [
            ("GET", "/user/:id", "write {id} instead of :id"),
            ("GET", "/user/<id>", "write {id} instead of <id>"),
            ("GET", "/user/<int:id>", "write {id} instead of <int:id>"),
            ("GET", "/static/*", "write {*rest} instead of *"),
            ("GET", "/static/*path", "write {*path} instead of *path"),
            ("GET", "/u/{id:int}", "write {id}"),
            ("GET", "/u/{p:path}", "write {*p}"),
            ("GET", "user", "begin with a slash"),
            ("GET", "", "begin with a slash"),
            ("GET", "/a?b=c", "without query"),
            ("GET", "/u/{", "name in braces"),
            ("GET", "/u/{}", "name in braces"),
            ("GET", "/u/{*rest}/more", "must come last"),
            ("GET", "/u/{a}{b}", "one parameter at most"),
            ("GET", "/u/{x}/{x}", "two parameters named x"),
            ("GET", "/u/a{x}/{y}/{*x}", "two parameters named x"),
            ("GET", "/user/{id}", "there already"),
            ("GET", "/user/{other}", "conflicts with /user/{id}"),
            ("get", "/x", "\"GET\""),
            ("", "/x", "is not a method"),
            ("GE T", "/x", "is not a method"),
        ] {
            let error = router.insert(method, pattern, "x").expect_err(pattern);
            assert!(error.to_string().contains(hint), "{pattern}: {error}");
        }
        // Nothing of that may have stuck.
        assert_eq!(show(&router, "GET", "/user/:id"), "user id=:id");
        router.insert("GET", "/at/v1:batch", "colon").unwrap();
        router.insert("GET", "/{{x}}", "braces").unwrap();
        router.insert("GET", "/q/{x}/{{x}}", "one").unwrap();
        assert_eq!(show(&router, "GET", "/at/v1:batch"), "colon");
        assert_eq!(show(&router, "GET", "/{x}"), "braces");
    }
}
