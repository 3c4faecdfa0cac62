//! Addresses to listen on.

use std::fmt;
use std::fs;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::sys::shortage;
use crate::sys::socket::Listener;

/// Where to listen.
#[derive(Clone, Debug)]
pub enum Listen {
    /// A TCP port; 0 picks a free one.
    Tcp {
        /// A name or an address.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix stream socket.
    Uds {
        /// Its path.
        path: PathBuf,
        /// The mode of the socket file; `None` leaves it to the umask.
        permissions: Option<u32>,
    },
}

/// Why a server could not start: one line with the remedy.
#[derive(Debug)]
pub struct StartError {
    problem: String,
    remedy: Option<Remedy>,
}

/// What the options of a program are called that say where to listen.
#[derive(Clone, Copy, Debug)]
pub struct AddressOptions {
    /// The name or address, such as `--host`.
    pub host: &'static str,
    /// The port.
    pub port: &'static str,
    /// The path of a Unix socket.
    pub uds: &'static str,
}

impl StartError {
    /// One without a remedy that depends on who asked.
    pub(super) fn new(problem: impl Into<String>) -> Self {
        Self {
            problem: problem.into(),
            remedy: None,
        }
    }

    /// The line for whoever runs a program with these options.
    pub fn naming(&self, options: &AddressOptions) -> String {
        self.line(Some(options))
    }

    /// One because of `why`, unless it is no address that is wrong.
    fn of_address(place: &str, error: &io::Error, why: &str, remedy: Remedy) -> Self {
        match shortage::remedy(error) {
            None => Self::with(format!("cannot listen on {place}: {why}"), remedy),
            Some(_) => {
                let why = shortage::explain(error);
                Self::new(format!("cannot listen on {place}: {why}"))
            }
        }
    }

    fn with(problem: String, remedy: Remedy) -> Self {
        Self {
            problem,
            remedy: Some(remedy),
        }
    }

    fn line(&self, options: Option<&AddressOptions>) -> String {
        match self.remedy {
            Some(remedy) => format!("{}; {}", self.problem, remedy.text(options)),
            None => self.problem.clone(),
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line(None))
    }
}

impl std::error::Error for StartError {}

/// What to do about an address.
#[derive(Clone, Copy, Debug)]
enum Remedy {
    /// Nobody knows what is wrong with it.
    CheckAddress,
    /// A host of this machine.
    LocalHost,
    /// A path where there is nothing else; or do this first.
    OtherPath(&'static str),
    /// A port above the privileged ones.
    OpenPort,
    /// A name that means an address.
    KnownHost,
    /// A port that is free.
    OtherPort,
    /// A path where a file can be made.
    WritablePath,
}

impl Remedy {
    /// In the words of a program's options; without them, as any caller understands it.
    fn text(self, options: Option<&AddressOptions>) -> String {
        match (self, options) {
            (Self::CheckAddress, Some(AddressOptions { host, port, .. })) => {
                format!("check {host} and {port}")
            }
            (Self::CheckAddress, None) => "check host and port".to_owned(),
            (Self::KnownHost, options) => {
                let give = options.map_or("use".to_owned(), |names| format!("give {}", names.host));
                format!("{give} an address of this machine, such as 127.0.0.1")
            }
            (Self::LocalHost, Some(AddressOptions { host, .. })) => {
                format!("use {host} 127.0.0.1 or {host} 0.0.0.0")
            }
            (Self::LocalHost, None) => "use 127.0.0.1 or 0.0.0.0".to_owned(),
            (Self::OpenPort, options) => format!(
                "ports below 1024 need root or CAP_NET_BIND_SERVICE, so choose another{}",
                by_port(options)
            ),
            (Self::OtherPath(first), Some(AddressOptions { uds, .. })) => {
                format!("{first} or give {uds} another path")
            }
            (Self::OtherPath(first), None) => format!("{first} or choose another path"),
            (Self::OtherPort, options) => format!(
                "stop the server that uses it or choose another{} (0 picks a free one)",
                by_port(options)
            ),
            (Self::WritablePath, options) => {
                let give =
                    options.map_or("choose".to_owned(), |names| format!("give {}", names.uds));
                format!("{give} a path in a folder that you may write to")
            }
        }
    }
}

fn by_port(options: Option<&AddressOptions>) -> String {
    options.map_or(String::new(), |names| format!(" with {}", names.port))
}

/// An address the engine listens on: one socket per loop.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) sockets: Vec<Listener>,
    /// As a person writes it.
    pub(super) url: String,
    /// What a request learns of it: host and port, or path and 0.
    pub(super) name: (String, u16),
    /// The socket file, to be removed at the end.
    pub(super) file: Option<PathBuf>,
}

impl Bound {
    pub(super) fn new(listen: &Listen, loops: usize, backlog: u32) -> Result<Self, StartError> {
        match listen {
            Listen::Tcp { host, port } => Self::tcp(host, *port, loops, backlog),
            Listen::Uds { path, permissions } => {
                let explain = |error: io::Error| {
                    let shown = path.display();
                    let (why, remedy) = match error.kind() {
                        io::ErrorKind::AddrInUse if !is_socket(path) => (
                            "there is something else than a socket".to_owned(),
                            Remedy::OtherPath("remove it"),
                        ),
                        io::ErrorKind::AddrInUse => (
                            "another server is using it".to_owned(),
                            Remedy::OtherPath("stop that server"),
                        ),
                        _ => (error.to_string(), Remedy::WritablePath),
                    };
                    StartError::of_address(&format!("unix:{shown}"), &error, &why, remedy)
                };
                let first = Listener::unix(path, *permissions, backlog).map_err(explain)?;
                let mut sockets = vec![first];
                for _ in 1..loops {
                    sockets.push(sockets[0].try_clone().map_err(explain)?);
                }
                let shown = path.display().to_string();
                Ok(Self {
                    sockets,
                    url: format!("unix:{shown}"),
                    name: (shown, 0),
                    file: Some(path.clone()),
                })
            }
        }
    }

    fn tcp(host: &str, port: u16, loops: usize, backlog: u32) -> Result<Self, StartError> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let address = resolve(bare, port)?;
        let place = format!("{host}:{port}");
        let sockets = Listener::tcp(address, loops, backlog).map_err(|error| {
            let (why, remedy) = match error.kind() {
                io::ErrorKind::AddrInUse => ("the port is taken", Remedy::OtherPort),
                io::ErrorKind::PermissionDenied => ("not permitted", Remedy::OpenPort),
                io::ErrorKind::AddrNotAvailable => {
                    ("this machine does not have that address", Remedy::LocalHost)
                }
                _ => (&*error.to_string(), Remedy::CheckAddress),
            };
            StartError::of_address(&place, &error, why, remedy)
        })?;
        let address = sockets[0]
            .local_tcp()
            .map_err(|error| StartError::new(format!("cannot listen on {place}: {error}")))?;
        Ok(Self {
            sockets,
            url: format!("http://{address}"),
            name: (address.ip().to_string(), address.port()),
            file: None,
        })
    }
}

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
}

fn resolve(host: &str, port: u16) -> Result<SocketAddr, StartError> {
    let unknown = |why: String| {
        let problem = format!("cannot listen on {host}:{port}: {why}");
        StartError::with(problem, Remedy::KnownHost)
    };
    (host, port)
        .to_socket_addrs()
        .map_err(|error| unknown(error.to_string()))?
        .next()
        .ok_or_else(|| unknown("the name has no address".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: AddressOptions = AddressOptions {
        host: "--stream-host",
        port: "--stream-port",
        uds: "--stream-uds",
    };

    fn refused(listen: &Listen) -> (String, String) {
        let error = Bound::new(listen, 1, 1).unwrap_err();
        (error.to_string(), error.naming(&PROGRAM))
    }

    #[test]
    fn remedies_are_in_the_words_of_whoever_asked() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (library, program) = refused(&Listen::Tcp {
            host: "127.0.0.1".into(),
            port: taken.local_addr().unwrap().port(),
        });
        let stop = "the port is taken; stop the server that uses it or choose another";
        assert!(
            library.ends_with(&format!("{stop} (0 picks a free one)")),
            "{library}"
        );
        let named = format!("{stop} with --stream-port (0 picks a free one)");
        assert!(program.ends_with(&named), "{program}");

        let (library, program) = refused(&Listen::Tcp {
            host: "192.0.2.1".into(),
            port: 0,
        });
        assert!(library.ends_with("; use 127.0.0.1 or 0.0.0.0"), "{library}");
        let named = "; use --stream-host 127.0.0.1 or --stream-host 0.0.0.0";
        assert!(program.ends_with(named), "{program}");

        let (library, program) = refused(&Listen::Uds {
            path: "/proc/no/such".into(),
            permissions: None,
        });
        let folder = "a path in a folder that you may write to";
        assert!(
            library.ends_with(&format!("; choose {folder}")),
            "{library}"
        );
        assert!(
            program.ends_with(&format!("; give --stream-uds {folder}")),
            "{program}"
        );

        let (library, program) = refused(&Listen::Uds {
            path: "/proc/self/exe".into(),
            permissions: None,
        });
        assert!(
            library.ends_with("; remove it or choose another path"),
            "{library}"
        );
        let named = "; remove it or give --stream-uds another path";
        assert!(program.ends_with(named), "{program}");
    }

    #[test]
    fn every_remedy_names_options_only_if_there_are_any() {
        let all = [
            Remedy::CheckAddress,
            Remedy::KnownHost,
            Remedy::LocalHost,
            Remedy::OpenPort,
            Remedy::OtherPath("remove it"),
            Remedy::OtherPort,
            Remedy::WritablePath,
        ];
        for remedy in all {
            assert!(!remedy.text(None).contains("--"), "{remedy:?}");
            assert!(
                remedy.text(Some(&PROGRAM)).contains("--stream-"),
                "{remedy:?}"
            );
        }
    }
}
