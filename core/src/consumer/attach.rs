//! HELLO and WELCOME.
#![forbid(unsafe_code)]

use std::{
    error::Error,
    ffi::OsStr,
    fmt, io,
    os::fd::{OwnedFd, RawFd},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::{
    Consumer,
    exchange::Exchange,
    files::Parcels,
    kick::{Line, Pace},
    retry::Retry,
};
use crate::{
    bus::{ABI, ConsumerLane, OpenError},
    config::default_bus_path,
    message::{
        Control, DecodeError, FEATURE_FILES, FEATURE_STREAM_TIME, FEATURE_STREAMS, Hello,
        MAX_CONTROL_PACKET, Welcome,
    },
    sys::{inherited, process::effective_user, rendezvous, seqpacket::Seqpacket},
};

/// What a consumer says about itself.
#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    /// "python", "node", "c", ...
    pub language: String,
    /// What to call it in logs.
    pub name: String,
    /// The pool it belongs to.
    pub pool: String,
    /// Exchanges that may exist at once.
    pub slots: u16,
    /// Exchanges the application may hold at once.
    pub concurrency: u16,
    /// Requests that may be sent but not yet started.
    pub window: u16,
    /// Which generation of workers it belongs to (counts reloads).
    pub generation: u32,
    /// What the supervisor gave it to prove who it is; 0 = none.
    pub token: u64,
    /// Wake the engine for every response. For workers that block in the application.
    pub kick_at_once: bool,
    /// Raw connections that it takes at once, among its exchanges. They come as requests that say
    /// [`is_stream`](crate::message::Request::is_stream). 0: it takes none.
    pub streams: u16,
    /// How long the engine may take to answer.
    pub timeout: Duration,
}

impl Default for ConsumerOptions {
    fn default() -> Self {
        Self {
            language: String::from("rust"),
            name: String::from("worker"),
            pool: String::from("main"),
            slots: 1024,
            concurrency: 1024,
            window: 16,
            generation: 0,
            token: 0,
            kick_at_once: false,
            streams: 0,
            timeout: Duration::from_secs(10),
        }
    }
}

/// Why a consumer could not attach.
#[derive(Debug)]
pub enum AttachError {
    /// The address of the bus is not understood.
    Address(String),
    /// There is nobody, or nobody suitable, at the path.
    Connect {
        /// The path.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The inherited descriptor cannot be used.
    Inherited {
        /// Its number.
        fd: RawFd,
        /// What is wrong with it.
        error: io::Error,
    },
    /// The control socket fails.
    Io(io::Error),
    /// The engine did not answer in time.
    Timeout(Duration),
    /// The engine hung up.
    HungUp,
    /// The engine does not want this consumer; its words.
    Refused(String),
    /// The engine chose a version this library does not speak.
    Version {
        /// The engine's major version.
        engine: u16,
    },
    /// The engine at the path runs as somebody who is not trusted.
    Stranger {
        /// The path.
        path: PathBuf,
        /// As which user it runs.
        engine: u32,
        /// As which user we run.
        ours: u32,
    },
    /// What the engine said is not understood.
    Malformed(DecodeError),
    /// The engine said something else than expected.
    Unexpected(&'static str),
    /// The lane cannot be mapped.
    Lane(OpenError),
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(bus) => write!(
                f,
                "{bus:?} is no address of a bus: expected a path that begins with a slash, such as \
                 /run/user/1000/toolb/bus, as `toolb serve` prints it, or fd:N, as `toolb run` sets \
                 TOOLB_BUS"
            ),
            Self::Connect { path, error } => explain_connect(path, error, f),
            Self::Inherited { fd, error } => write!(
                f,
                "TOOLB_BUS=fd:{fd} names no inherited toolB socket ({error}): was the variable passed \
                 on to a child process? Unset it there"
            ),
            Self::Io(error) => write!(f, "the socket to the engine fails: {error}"),
            Self::Timeout(timeout) => {
                write!(f, "the engine did not answer within {timeout:?}")
            }
            Self::HungUp => f.write_str("the engine hung up before it answered"),
            Self::Refused(text) => write!(
                f,
                "the engine refused this worker (toolb {}): {text}",
                env!("CARGO_PKG_VERSION")
            ),
            Self::Version { engine } => {
                let (ours, remedy) = (ABI.0, remedy(*engine));
                let release = env!("CARGO_PKG_VERSION");
                write!(
                    f,
                    "the engine speaks bus ABI {engine}, this worker (toolb {release}) bus ABI {ours}: \
                     {remedy} and start it again"
                )
            }
            Self::Stranger { path, engine, ours } => write!(
                f,
                "the engine at {} runs as user {engine}, and this program as user {ours}: run both as \
                 the same user",
                path.display()
            ),
            Self::Malformed(error) => error.fmt(f),
            Self::Unexpected(what) => f.write_str(what),
            Self::Lane(error) => error.fmt(f),
        }
    }
}

impl Error for AttachError {}

impl AttachError {
    /// Whether it may work as soon as an engine is there: it is worth another try.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Connect { error, .. } => matches!(
                error.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::WouldBlock
            ),
            Self::HungUp | Self::Timeout(_) => true,
            _ => false,
        }
    }
}

fn explain_connect(path: &Path, error: &io::Error, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    // An engine makes the folder of the default path, and no other.
    let is_made = |folder: &Path| folder.exists() || path == default_bus_path();
    let missing = path.parent().filter(|folder| !is_made(folder));
    let path = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => match missing {
            Some(folder) => write!(
                f,
                "there is no bus at {path}, nor a folder {}, and `toolb serve` makes none",
                folder.display()
            ),
            None => write!(f, "there is no bus at {path}: is `toolb serve` running?"),
        },
        io::ErrorKind::ConnectionRefused => write!(
            f,
            "nobody listens at {path}: is `toolb serve` still running?"
        ),
        io::ErrorKind::PermissionDenied => write!(
            f,
            "the bus at {path} is not for this user: run as the user who runs `toolb serve`"
        ),
        io::ErrorKind::WouldBlock => {
            write!(
                f,
                "the engine at {path} does not let anybody in: does it hang?"
            )
        }
        _ if error.raw_os_error() == Some(WRONG_KIND) => write!(
            f,
            "the socket at {path} is no bus: give the path that `toolb serve` prints"
        ),
        _ if error.raw_os_error() == Some(NO_SOCKET) => write!(
            f,
            "what is at {path} is no socket: give the path that `toolb serve` prints"
        ),
        _ => write!(f, "cannot connect to the bus at {path}: {error}"),
    }
}

/// ENOTSOCK: a file, or a folder.
const NO_SOCKET: i32 = 88;

/// EPROTOTYPE: a socket of another kind.
const WRONG_KIND: i32 = 91;

fn remedy(engine: u16) -> &'static str {
    if engine > ABI.0 {
        "upgrade toolb in the worker's environment"
    } else {
        "upgrade toolb on the engine's side"
    }
}

impl Consumer {
    /// Attaches to the engine that `bus` names: `fd:N` is an inherited socket, `unix:/path` or
    /// `/path` the bus socket of a running engine. Blocks until it answered.
    pub fn attach(bus: impl AsRef<OsStr>, options: &ConsumerOptions) -> Result<Self, AttachError> {
        let bus = bus.as_ref();
        let unknown = || AttachError::Address(bus.to_string_lossy().into_owned());
        // A path may be any bytes.
        let bytes = bus.as_bytes();
        let socket = if let Some(number) = bytes.strip_prefix(b"fd:") {
            let number = str::from_utf8(number).map_err(|_| unknown())?;
            let fd = number.parse::<RawFd>().ok().filter(|fd| *fd >= 0);
            let fd = fd.ok_or_else(unknown)?;
            inherited::packet_socket(fd).map_err(|error| AttachError::Inherited { fd, error })?
        } else {
            let path = Path::new(OsStr::from_bytes(
                bytes.strip_prefix(b"unix:").unwrap_or(bytes),
            ));
            if !path.is_absolute() {
                return Err(unknown());
            }
            let failed = |error| AttachError::Connect {
                path: path.to_owned(),
                error,
            };
            let socket = rendezvous::connect(path, options.timeout).map_err(failed)?;
            let engine = rendezvous::listening_user(&socket).map_err(failed)?;
            trust(path, engine, effective_user())?;
            socket
        };
        Self::attach_to(socket, options)
    }

    /// As [`attach`](Self::attach), but waits up to `patience` for an engine to be there. Between
    /// two tries there are 10 ms at first and 1 s at last, more or less.
    pub fn attach_within(
        bus: impl AsRef<OsStr>,
        options: &ConsumerOptions,
        patience: Duration,
    ) -> Result<Self, AttachError> {
        let (since, mut retry) = (Instant::now(), Retry::new());
        loop {
            match Self::attach(bus.as_ref(), options) {
                Err(error) if error.may_pass() && since.elapsed() < patience => {
                    let left = patience.saturating_sub(since.elapsed());
                    thread::sleep(retry.pause().min(left));
                }
                outcome => return outcome,
            }
        }
    }

    /// Attaches to the engine at the other end of `socket`.
    pub fn attach_to(socket: Seqpacket, options: &ConsumerOptions) -> Result<Self, AttachError> {
        let streams = match options.streams {
            0 => 0,
            _ => FEATURE_STREAMS | FEATURE_STREAM_TIME,
        };
        let hello = Control::Hello(Hello {
            abi_min: ABI.0,
            abi_max: ABI.0,
            features: FEATURE_FILES | streams,
            language: options.language.clone(),
            name: options.name.clone(),
            pool: options.pool.clone(),
            generation: options.generation,
            token: options.token,
            slots: options.slots,
            concurrency: options.concurrency,
            window: options.window,
            pid: std::process::id(),
            streams: options.streams,
        });
        match socket.send(&hello.encode(), &[]) {
            Ok(()) => {}
            // Whoever hangs up before our first word has told why.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                ) => {}
            Err(error) => return Err(AttachError::Io(error)),
        }
        let (welcome, fds) = receive_welcome(&socket, options.timeout)?;
        let lane = ConsumerLane::open(fds).map_err(AttachError::Lane)?;
        let geometry = lane.geometry();
        let announced = (
            welcome.rings,
            welcome.slots,
            welcome.request_capacity,
            welcome.response_capacity,
        );
        let mapped = (
            geometry.rings,
            geometry.slots,
            geometry.request_capacity,
            geometry.response_capacity,
        );
        if announced != mapped {
            return Err(AttachError::Unexpected(
                "the lane has other sizes than the engine announced",
            ));
        }
        socket.set_nonblocking(true).map_err(AttachError::Io)?;
        let mut consumer = Self::new(lane, socket, options.kick_at_once);
        consumer.streams = options.streams > 0;
        consumer.keeps_time = welcome.features & FEATURE_STREAM_TIME != 0;
        consumer.takes_files = welcome.features & FEATURE_FILES != 0;
        Ok(consumer)
    }

    pub(super) fn new(lane: ConsumerLane, socket: Seqpacket, kick_at_once: bool) -> Self {
        let (rings, slots) = (lane.geometry().rings, lane.geometry().slots);
        Self {
            exchanges: (0..slots).map(|_| Exchange::default()).collect(),
            lines: (0..rings).map(|_| Line::default()).collect(),
            lane,
            socket,
            in_flight: 0,
            writable: Vec::new(),
            news: Vec::new(),
            keeps_time: false,
            streams: false,
            pace: Pace::new(kick_at_once),
            scratch: Vec::with_capacity(4096),
            head: None,
            pass: Vec::new(),
            spare: Vec::new(),
            turn: 0,
            hung_up: false,
            hang_up_is_news: false,
            armed: false,
            takes_files: false,
            parcels: Parcels::new(),
        }
    }
}

/// Who answers at a path in a folder of many users may be anybody. What it says is obeyed, so it has
/// to be of the same user, or of root.
fn trust(path: &Path, engine: u32, ours: u32) -> Result<(), AttachError> {
    if engine == ours || engine == 0 {
        return Ok(());
    }
    Err(AttachError::Stranger {
        path: path.to_owned(),
        engine,
        ours,
    })
}

fn receive_welcome(
    socket: &Seqpacket,
    timeout: Duration,
) -> Result<(Welcome, Vec<OwnedFd>), AttachError> {
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if socket.wait(Some(left)).map_err(AttachError::Io)? {
            break;
        }
        // A signal ends a wait, too.
        if left.is_zero() {
            return Err(AttachError::Timeout(timeout));
        }
    }
    let mut packet = vec![0; MAX_CONTROL_PACKET];
    let mut fds = Vec::new();
    let len = socket
        .recv(&mut packet, &mut fds)
        .map_err(AttachError::Io)?;
    if len == 0 {
        return Err(AttachError::HungUp);
    }
    match Control::decode(&packet[..len]).map_err(AttachError::Malformed)? {
        Control::Welcome(welcome) if welcome.abi.0 != ABI.0 => Err(AttachError::Version {
            engine: welcome.abi.0,
        }),
        Control::Welcome(welcome) => Ok((welcome, fds)),
        Control::Error(text) => Err(AttachError::Refused(text)),
        _ => Err(AttachError::Unexpected(
            "the engine answered HELLO with neither WELCOME nor ERROR",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_is_of_the_same_user_or_of_root() {
        let path = Path::new("/run/bus");
        for (engine, ours) in [(1000, 1000), (0, 1000), (0, 0)] {
            trust(path, engine, ours).unwrap();
        }
        for (engine, ours) in [(1001, 1000), (1000, 0), (65_534, 1000)] {
            let error = trust(path, engine, ours).unwrap_err();
            assert!(!error.may_pass());
            let text = error.to_string();
            let users = format!("as user {engine}, and this program as user {ours}");
            assert!(text.contains("/run/bus") && text.contains(&users), "{text}");
        }
    }

    #[test]
    fn a_folder_that_is_missing_is_told_from_an_engine_that_is() {
        let told = |path: &Path| {
            let path = path.to_owned();
            let error = io::Error::from(io::ErrorKind::NotFound);
            let error = AttachError::Connect { path, error };
            assert!(error.may_pass());
            error.to_string()
        };
        let text = told(Path::new("/proc/no such folder/bus"));
        assert!(
            text.contains("at /proc/no such folder/bus, nor a folder /proc/no such folder,"),
            "{text}"
        );
        for path in [Path::new("/proc/bus"), &default_bus_path()] {
            assert!(told(path).starts_with("there is no bus at "));
        }
    }
}
