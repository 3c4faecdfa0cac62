//! HELLO and WELCOME.
#![forbid(unsafe_code)]

use std::{
    error::Error,
    fmt, io,
    os::fd::{OwnedFd, RawFd},
    time::{Duration, Instant},
};

use super::{
    Consumer,
    exchange::Exchange,
    kick::{Line, Pace},
};
use crate::{
    bus::{ABI, ConsumerLane, OpenError},
    message::{Control, DecodeError, Hello, MAX_CONTROL_PACKET, Welcome},
    sys::{inherited, seqpacket::Seqpacket},
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
            timeout: Duration::from_secs(10),
        }
    }
}

/// Why a consumer could not attach.
#[derive(Debug)]
pub enum AttachError {
    /// The value of TOOLB_BUS is not understood.
    Address(String),
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
                "TOOLB_BUS={bus:?} is not understood: expected fd:N, as `toolb run` sets it"
            ),
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
            Self::Malformed(error) => error.fmt(f),
            Self::Unexpected(what) => f.write_str(what),
            Self::Lane(error) => error.fmt(f),
        }
    }
}

impl Error for AttachError {}

fn remedy(engine: u16) -> &'static str {
    if engine > ABI.0 {
        "upgrade toolb in the worker's environment"
    } else {
        "upgrade toolb on the engine's side"
    }
}

impl Consumer {
    /// Attaches to the engine that `bus`, the value of TOOLB_BUS, names. Blocks until it answered.
    pub fn attach(bus: &str, options: &ConsumerOptions) -> Result<Self, AttachError> {
        let number = bus
            .strip_prefix("fd:")
            .and_then(|fd| fd.parse::<RawFd>().ok());
        let Some(fd) = number.filter(|fd| *fd >= 0) else {
            return Err(AttachError::Address(bus.to_owned()));
        };
        let socket =
            inherited::packet_socket(fd).map_err(|error| AttachError::Inherited { fd, error })?;
        Self::attach_to(socket, options)
    }

    /// Attaches to the engine at the other end of `socket`.
    pub fn attach_to(socket: Seqpacket, options: &ConsumerOptions) -> Result<Self, AttachError> {
        let hello = Control::Hello(Hello {
            abi_min: ABI.0,
            abi_max: ABI.0,
            features: 0,
            language: options.language.clone(),
            name: options.name.clone(),
            pool: options.pool.clone(),
            generation: options.generation,
            token: options.token,
            slots: options.slots,
            concurrency: options.concurrency,
            window: options.window,
            pid: std::process::id(),
        });
        socket
            .send(&hello.encode(), &[])
            .map_err(|error| match error.kind() {
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => AttachError::HungUp,
                _ => AttachError::Io(error),
            })?;
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
        Ok(Self::new(lane, socket, options.kick_at_once))
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
            pace: Pace::new(kick_at_once),
            scratch: Vec::with_capacity(4096),
            pass: Vec::new(),
            spare: Vec::new(),
            turn: 0,
            hung_up: false,
            hang_up_is_news: false,
            armed: false,
        }
    }
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
