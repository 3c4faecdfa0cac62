//! Addresses to listen on.

use std::fmt;
use std::fs;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

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
pub struct StartError(pub(super) String);

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

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
                    StartError(match error.kind() {
                        io::ErrorKind::AddrInUse if !is_socket(path) => format!(
                            "cannot listen on unix:{shown}: there is something else than a socket; \
                             remove it or give --uds another path"
                        ),
                        io::ErrorKind::AddrInUse => format!(
                            "cannot listen on unix:{shown}: another server is using it; stop that \
                             server or give --uds another path"
                        ),
                        _ => format!(
                            "cannot listen on unix:{shown}: {error}; give --uds a path in a folder \
                             that you may write to"
                        ),
                    })
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
        let sockets = Listener::tcp(address, loops, backlog).map_err(|error| {
            StartError(match error.kind() {
                io::ErrorKind::AddrInUse => format!(
                    "cannot listen on {host}:{port}: the port is taken; stop the server that uses \
                     it or choose another with --port (0 picks a free one)"
                ),
                io::ErrorKind::PermissionDenied => format!(
                    "cannot listen on {host}:{port}: not permitted; ports below 1024 need root or \
                     CAP_NET_BIND_SERVICE, so choose another with --port"
                ),
                io::ErrorKind::AddrNotAvailable => format!(
                    "cannot listen on {host}:{port}: this machine does not have that address; use \
                     --host 127.0.0.1 or --host 0.0.0.0"
                ),
                _ => format!("cannot listen on {host}:{port}: {error}; check --host and --port"),
            })
        })?;
        let address = sockets[0]
            .local_tcp()
            .map_err(|error| StartError(format!("cannot listen on {host}:{port}: {error}")))?;
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
        StartError(format!(
            "cannot listen on {host}:{port}: {why}; give --host an address of this machine, such \
             as 127.0.0.1"
        ))
    };
    (host, port)
        .to_socket_addrs()
        .map_err(|error| unknown(error.to_string()))?
        .next()
        .ok_or_else(|| unknown("the name has no address".into()))
}
