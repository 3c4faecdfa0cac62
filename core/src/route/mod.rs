//! Floor 2: method and path matching.
#![forbid(unsafe_code)]

use std::fmt;

pub use matchit::Params;

/// Values by method and path pattern.
#[derive(Clone)]
pub struct Router<T> {
    paths: matchit::Router<Vec<(String, T)>>,
    /// The patterns known, for those that a second method is added to.
    patterns: Vec<String>,
}

/// What a router knows of a method and path.
#[derive(Debug)]
pub enum Match<'r, 'p, T> {
    /// The value, and what each parameter stands for.
    Found(&'r T, Params<'r, 'p>),
    /// The path is known, but not with this method.
    MethodNotAllowed {
        /// The methods it is known with, as an `Allow` field has them.
        allow: String,
    },
    /// The path is not known.
    NotFound,
}

/// Why a route was refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RouteError(String);

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RouteError {}

impl<T> Default for Router<T> {
    fn default() -> Self {
        Self {
            paths: matchit::Router::new(),
            patterns: Vec::new(),
        }
    }
}

impl<T> Router<T> {
    /// Adds a route. `method` is upper case, or `*` for all; `pattern` begins with a slash and may
    /// have parameters: `/user/{id}` for one segment, `/files/{*rest}` for all that follows.
    pub fn insert(&mut self, method: &str, pattern: &str, value: T) -> Result<(), RouteError> {
        let refuse = |why: &str| Err(RouteError(format!("route {method} {pattern}: {why}")));
        let is_method = method == "*"
            || !method.is_empty() && method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
        if !is_method {
            return refuse("the method must be upper case, such as GET, or * for all");
        }
        if !pattern.starts_with('/') {
            return refuse("the pattern must begin with a slash");
        }
        let foreign = pattern.split('/').any(|part| part.starts_with([':', '<']));
        if foreign {
            return refuse("write a parameter in braces, as in /user/{id}");
        }
        if !self.patterns.iter().any(|known| known == pattern) {
            if let Err(error) = self.paths.insert(pattern, Vec::new()) {
                return refuse(&error.to_string());
            }
            self.patterns.push(pattern.to_owned());
        }
        // A pattern always matches itself: braces are ordinary characters of a path.
        let Ok(found) = self.paths.at_mut(pattern) else {
            return refuse("the pattern is malformed");
        };
        if found.value.iter().any(|(known, _)| known == method) {
            return refuse("there is a handler for it already");
        }
        found.value.push((method.to_owned(), value));
        Ok(())
    }

    /// Finds the route for a method and a decoded path. A HEAD is served by a GET's route.
    pub fn find<'r, 'p>(&'r self, method: &[u8], path: &'p str) -> Match<'r, 'p, T> {
        let Ok(found) = self.paths.at(path) else {
            return Match::NotFound;
        };
        let with = |wanted: &[u8]| {
            let mut methods = found.value.iter();
            methods.find(|(known, _)| known.as_bytes() == wanted)
        };
        let route = with(method)
            .or_else(|| (method == b"HEAD").then(|| with(b"GET")).flatten())
            .or_else(|| with(b"*"));
        match route {
            Some((_, value)) => Match::Found(value, found.params),
            None => Match::MethodNotAllowed {
                allow: allow(found.value),
            },
        }
    }

    /// Whether there are no routes.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }
}

fn allow<T>(methods: &[(String, T)]) -> String {
    let mut names: Vec<&str> = methods.iter().map(|(method, _)| &**method).collect();
    if names.contains(&"GET") && !names.contains(&"HEAD") {
        names.push("HEAD");
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router() -> Router<u32> {
        let mut router = Router::default();
        router.insert("GET", "/", 1).unwrap();
        router.insert("GET", "/user/{id}", 2).unwrap();
        router.insert("POST", "/user/{id}", 3).unwrap();
        router.insert("*", "/files/{*rest}", 4).unwrap();
        router
    }

    #[test]
    fn routes_are_found_by_method_and_path() {
        let router = router();
        let found = |method: &str, path: &str| match router.find(method.as_bytes(), path) {
            Match::Found(value, params) => {
                let params: Vec<_> = params.iter().map(|(k, v)| format!("{k}={v}")).collect();
                format!("{value} {}", params.join(","))
            }
            Match::MethodNotAllowed { allow } => allow,
            Match::NotFound => "none".into(),
        };
        assert_eq!(found("GET", "/"), "1 ");
        assert_eq!(found("HEAD", "/user/7"), "2 id=7");
        assert_eq!(found("POST", "/user/7"), "3 id=7");
        assert_eq!(found("PUT", "/user/7"), "GET, POST, HEAD");
        assert_eq!(found("PUT", "/files/a/b"), "4 rest=a/b");
        assert_eq!(found("GET", "/nowhere"), "none");
    }

    #[test]
    fn a_route_that_cannot_be_meant_is_refused_with_the_remedy() {
        let mut router = router();
        for (method, pattern, remedy) in [
            ("get", "/", "upper case"),
            ("GET", "user", "begin with a slash"),
            ("GET", "/user/:id", "in braces"),
            ("GET", "/user/<id>", "in braces"),
            ("GET", "/user/{id}", "already"),
            ("GET", "/user/{name}", "onflict"),
            ("GET", "/open/{", "route GET"),
        ] {
            let error = router.insert(method, pattern, 9).unwrap_err().to_string();
            assert!(error.contains(remedy), "{error}");
        }
    }
}
