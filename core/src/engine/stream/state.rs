//! One stream, and what it decides from its state and the time it is told.

use std::net::SocketAddr;
use std::time::Duration;

use crate::sys::socket::Socket;

use super::super::reserve::Guest;
use super::patience::{Patience, after};
use super::{CloseReason, ServiceOptions, Wait};

/// How far a stream is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Phase {
    /// An outgoing connection that is being made.
    Connecting,
    /// The connection is there; its service has not been told yet.
    Fresh {
        /// It was made from here.
        outgoing: bool,
    },
    /// In use.
    Open,
    /// Sending what is left, then ending.
    Closing(CloseReason),
    /// The service is to be told.
    Over(Ending),
    /// The service has been told; reading until the peer has seen our end, or closing at once would
    /// reset the connection and could take what we sent away from it.
    Linger,
}

/// What a service is told at the end of a stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ending {
    Closed(CloseReason),
    /// With the system's number of the error.
    ConnectFailed(i32),
    /// The service never heard of it.
    Unknown,
}

/// What a service is told in the middle of a stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Event {
    Begin { outgoing: bool },
    Receive,
    Writable,
}

/// Which deadline of a stream has passed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Overdue {
    Connect,
    Idle,
    Linger,
    Send,
}

/// A connection, its buffers and what it waits for.
pub(super) struct Stream {
    /// `None` once it is broken or if it could not be made.
    pub(super) socket: Option<Socket>,
    /// Its descriptor is one of the last.
    pub(super) guest: Option<Guest>,
    pub(super) service: u16,
    /// `None` on a Unix socket.
    pub(super) peer: Option<SocketAddr>,
    /// The application's.
    pub(super) tag: usize,
    pub(super) phase: Phase,
    /// Nothing more comes from the peer.
    pub(super) ended: bool,
    /// A service that goes on behind the peer's end has been told of it.
    pub(super) end_told: bool,
    /// Nothing more can be sent.
    pub(super) broken: bool,
    /// The kernel has told of an end, behind which it tells nothing more.
    pub(super) hung_up: bool,
    pub(super) can_read: bool,
    pub(super) can_write: bool,
    /// The loop's epoll knows the socket.
    pub(super) watched: bool,
    /// It stands in the list of streams to go on with.
    pub(super) in_work: bool,
    /// It stands in the list of streams to settle at the end of the turn.
    pub(super) in_dirty: bool,
    pub(super) input: Vec<u8>,
    /// How much of `input` has been used up.
    pub(super) consumed: usize,
    /// Bytes have come of which the service has not been told.
    pub(super) news: bool,
    /// The service wants to be told when so many bytes are unread.
    pub(super) wanted: Option<usize>,
    pub(super) output: Vec<u8>,
    /// How much of `output` has been sent.
    pub(super) sent: usize,
    /// A send was refused, so the service waits to be told of room.
    pub(super) refused: bool,
    /// When output was begun to be queued or the peer last took some; `u64::MAX` when there is none.
    pub(super) taken: u64,
    /// When the phase has lasted for too long.
    pub(super) patience: Patience,
    /// The earliest deadline that stands in the loop's heap for this stream.
    pub(super) timer: u64,
}

impl Stream {
    pub(super) fn new(service: u16, socket: Option<Socket>) -> Self {
        Self {
            socket,
            guest: None,
            service,
            peer: None,
            tag: 0,
            phase: Phase::Fresh { outgoing: false },
            ended: false,
            end_told: false,
            broken: false,
            hung_up: false,
            // The peer may have spoken before the socket was watched: then an edge is reported.
            can_read: false,
            can_write: true,
            watched: false,
            in_work: false,
            in_dirty: false,
            input: Vec::new(),
            consumed: 0,
            news: false,
            wanted: None,
            output: Vec::new(),
            sent: 0,
            refused: false,
            taken: u64::MAX,
            patience: Patience::new(),
            timer: u64::MAX,
        }
    }

    /// Lets it be idle from `now` on.
    pub(super) fn wait(&mut self, wait: Wait, now: u64, options: &ServiceOptions) {
        self.patience.wait(wait, now, options.default_timeout);
    }

    /// Takes `event` as told: what its service wants next is for its callback to say.
    pub(super) fn tell(&mut self, event: Event, now: u64, options: &ServiceOptions) {
        match event {
            Event::Begin { .. } => self.phase = Phase::Open,
            Event::Receive => {
                self.news = false;
                self.wanted = None;
                self.end_told = self.ended;
            }
            Event::Writable => {
                self.refused = false;
                return self.patience.moved(now, options.default_timeout);
            }
        }
        self.wait(Wait::Default, now, options);
    }

    /// The peer has taken output.
    pub(super) fn moved(&mut self, now: u64, options: &ServiceOptions) {
        self.taken = match self.unsent() {
            0 => u64::MAX,
            _ => now,
        };
        if self.phase == Phase::Open {
            self.patience.moved(now, options.default_timeout);
        }
    }

    /// Draws the consequences of an end: everything that came has been told, or everything that was
    /// queued has been sent. True: our direction is to be ended.
    pub(super) fn conclude(&mut self, options: &ServiceOptions) -> bool {
        let goes_on = options.half_open && !self.broken;
        if self.phase == Phase::Open && self.ended && !goes_on && !self.receive_due(options) {
            self.phase = Phase::Closing(CloseReason::PeerClosed);
        }
        let Phase::Closing(reason) = self.phase else {
            return false;
        };
        if self.broken {
            self.phase = Phase::Over(Ending::Closed(CloseReason::Reset));
            return false;
        }
        if self.unsent() > 0 {
            return false;
        }
        self.phase = Phase::Over(Ending::Closed(reason));
        true
    }

    /// What its service is to be told now.
    pub(super) fn next_event(&self, options: &ServiceOptions) -> Option<Event> {
        match self.phase {
            Phase::Fresh { outgoing } => Some(Event::Begin { outgoing }),
            Phase::Open if self.receive_due(options) => Some(Event::Receive),
            Phase::Open if self.refused && self.unsent() <= options.send_limit / 2 => {
                Some(Event::Writable)
            }
            _ => None,
        }
    }

    /// Whether there is a reason to read from the socket.
    pub(super) fn wants_to_read(&self, options: &ServiceOptions) -> bool {
        let room = match self.phase {
            Phase::Open => self.unread().len() < options.receive_limit,
            Phase::Linger => true,
            _ => false,
        };
        room && self.can_read && !self.ended
    }

    /// When something has to be done if nothing happens.
    pub(super) fn deadline(&self, send_idle: Duration) -> u64 {
        match self.phase {
            Phase::Connecting | Phase::Linger => self.patience.until,
            Phase::Open => self.patience.until.min(self.send_deadline(send_idle)),
            Phase::Closing(_) => self.send_deadline(send_idle),
            Phase::Fresh { .. } | Phase::Over(_) => u64::MAX,
        }
    }

    /// Which deadline has passed at `now`.
    pub(super) fn overdue(&self, now: u64, send_idle: Duration) -> Option<Overdue> {
        let sending = now >= self.send_deadline(send_idle);
        let idle = now >= self.patience.until;
        match self.phase {
            Phase::Connecting if idle => Some(Overdue::Connect),
            Phase::Linger if idle => Some(Overdue::Linger),
            Phase::Open | Phase::Closing(_) if sending => Some(Overdue::Send),
            Phase::Open if idle => Some(Overdue::Idle),
            _ => None,
        }
    }

    /// What has been read and not been used.
    #[inline]
    pub(super) fn unread(&self) -> &[u8] {
        &self.input[self.consumed..]
    }

    /// How much has not been sent.
    #[inline]
    pub(super) fn unsent(&self) -> usize {
        self.output.len() - self.sent
    }

    fn receive_due(&self, options: &ServiceOptions) -> bool {
        let unread = self.unread().len();
        let goes_on = options.half_open && !self.broken;
        match self.wanted {
            _ if goes_on && self.ended && !self.end_told => true,
            _ if unread == 0 => false,
            Some(least) => unread >= least || self.ended || unread >= options.receive_limit,
            None => self.news,
        }
    }

    fn send_deadline(&self, send_idle: Duration) -> u64 {
        match self.unsent() {
            0 => u64::MAX,
            _ => after(self.taken, Some(send_idle)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const SEND_IDLE: Duration = Duration::from_secs(30);
    const OPTIONS: ServiceOptions = ServiceOptions {
        default_timeout: Some(Duration::from_secs(60)),
        receive_limit: 100,
        send_limit: 100,
        half_open: false,
    };

    fn open(now: u64) -> Stream {
        let mut stream = Stream::new(0, None);
        let event = stream.next_event(&OPTIONS).unwrap();
        assert_eq!(event, Event::Begin { outgoing: false });
        stream.tell(event, now, &OPTIONS);
        stream
    }

    fn arrive(stream: &mut Stream, bytes: &[u8]) {
        stream.input.extend_from_slice(bytes);
        stream.news = true;
    }

    fn receive(stream: &mut Stream, now: u64) -> bool {
        let due = stream.next_event(&OPTIONS) == Some(Event::Receive);
        if due {
            stream.tell(Event::Receive, now, &OPTIONS);
        }
        due
    }

    #[test]
    fn an_idle_stream_times_out_to_the_nanosecond() {
        let mut stream = open(5);
        assert_eq!(stream.deadline(SEND_IDLE), 60 * SECOND + 5);
        assert_eq!(stream.overdue(60 * SECOND + 4, SEND_IDLE), None);
        let overdue = stream.overdue(60 * SECOND + 5, SEND_IDLE);
        assert_eq!(overdue, Some(Overdue::Idle));

        let exactly = Wait::For(Duration::from_millis(250));
        stream.wait(exactly, 7, &OPTIONS);
        assert_eq!(stream.overdue(250_000_006, SEND_IDLE), None);
        let overdue = stream.overdue(250_000_007, SEND_IDLE);
        assert_eq!(overdue, Some(Overdue::Idle));

        stream.wait(Wait::Forever, 7, &OPTIONS);
        assert_eq!(stream.deadline(SEND_IDLE), u64::MAX);
        stream.wait(Wait::For(Duration::MAX), 7, &OPTIONS);
        assert_eq!(stream.deadline(SEND_IDLE), u64::MAX);
    }

    #[test]
    fn a_deadline_holds_until_its_event_and_then_falls_back() {
        let mut stream = open(0);
        stream.wanted = Some(10);
        stream.wait(Wait::For(Duration::from_secs(1)), 0, &OPTIONS);
        // Drops of what is wanted do not put the deadline off.
        arrive(&mut stream, b"12345");
        assert!(!receive(&mut stream, SECOND / 2));
        assert_eq!(stream.deadline(SEND_IDLE), SECOND);
        arrive(&mut stream, b"67890");
        assert!(receive(&mut stream, SECOND / 2));
        assert_eq!(stream.deadline(SEND_IDLE), SECOND / 2 + 60 * SECOND);
    }

    #[test]
    fn a_slow_reader_is_cut_and_one_that_moves_is_not() {
        let mut stream = open(0);
        stream.wait(Wait::Forever, 0, &OPTIONS);
        stream.output.extend_from_slice(b"12345678");
        stream.taken = SECOND;
        assert_eq!(stream.deadline(SEND_IDLE), 31 * SECOND);
        stream.sent = 4;
        stream.moved(20 * SECOND, &OPTIONS);
        assert_eq!(stream.overdue(50 * SECOND - 1, SEND_IDLE), None);
        let overdue = stream.overdue(50 * SECOND, SEND_IDLE);
        assert_eq!(overdue, Some(Overdue::Send));
        stream.sent = 8;
        stream.moved(50 * SECOND, &OPTIONS);
        assert_eq!(stream.deadline(SEND_IDLE), u64::MAX);
    }

    #[test]
    fn a_listener_that_takes_what_it_is_sent_is_not_idle_by_default() {
        let mut stream = open(0);
        stream.moved(10 * SECOND, &OPTIONS);
        assert_eq!(stream.deadline(SEND_IDLE), 70 * SECOND);
        stream.wait(Wait::For(Duration::from_secs(5)), 10 * SECOND, &OPTIONS);
        stream.moved(12 * SECOND, &OPTIONS);
        assert_eq!(stream.deadline(SEND_IDLE), 15 * SECOND);
    }

    #[test]
    fn connecting_and_lingering_have_their_own_ends() {
        let mut stream = Stream::new(0, None);
        stream.phase = Phase::Connecting;
        stream.patience.until = 10;
        assert_eq!(stream.overdue(9, SEND_IDLE), None);
        assert_eq!(stream.overdue(10, SEND_IDLE), Some(Overdue::Connect));
        stream.phase = Phase::Linger;
        assert_eq!(stream.overdue(10, SEND_IDLE), Some(Overdue::Linger));
    }

    #[test]
    fn unread_bytes_are_told_once_and_again_only_when_wanted() {
        let mut stream = open(0);
        arrive(&mut stream, b"abc");
        assert!(receive(&mut stream, 1));
        assert!(!receive(&mut stream, 2));
        stream.wanted = Some(1);
        assert!(receive(&mut stream, 3));
        assert!(!receive(&mut stream, 4));
        stream.consumed = 3;
        stream.wanted = Some(1);
        assert!(!receive(&mut stream, 5));
        arrive(&mut stream, b"d");
        assert!(receive(&mut stream, 6));
    }

    #[test]
    fn a_full_buffer_is_told_though_more_was_wanted() {
        let mut stream = open(0);
        stream.wanted = Some(100);
        stream.can_read = true;
        arrive(&mut stream, &[0; 99]);
        assert!(stream.wants_to_read(&OPTIONS));
        assert!(!receive(&mut stream, 1));
        arrive(&mut stream, &[0; 1]);
        assert!(!stream.wants_to_read(&OPTIONS));
        assert!(receive(&mut stream, 1));
    }

    #[test]
    fn what_came_is_told_before_the_end() {
        let mut stream = open(0);
        stream.wanted = Some(10);
        arrive(&mut stream, b"last");
        stream.ended = true;
        assert!(!stream.conclude(&OPTIONS));
        assert!(receive(&mut stream, 1));
        // One answer is still to go out.
        stream.output.extend_from_slice(b"bye");
        assert!(!stream.conclude(&OPTIONS));
        assert_eq!(stream.phase, Phase::Closing(CloseReason::PeerClosed));
        stream.sent = 3;
        assert!(stream.conclude(&OPTIONS));
        let told = Phase::Over(Ending::Closed(CloseReason::PeerClosed));
        assert_eq!(stream.phase, told);
    }

    #[test]
    fn a_half_open_stream_is_told_of_the_end_and_goes_on() {
        let options = ServiceOptions {
            half_open: true,
            ..OPTIONS
        };
        let mut stream = open(0);
        stream.ended = true;
        assert_eq!(stream.next_event(&options), Some(Event::Receive));
        stream.tell(Event::Receive, 1, &options);
        assert_eq!(stream.next_event(&options), None);
        assert!(!stream.conclude(&options));
        assert_eq!(stream.phase, Phase::Open);
        assert_eq!(
            stream.overdue(60 * SECOND + 1, SEND_IDLE),
            Some(Overdue::Idle)
        );
        // A connection that broke does not go on, nor is its end told of but by `close`.
        stream.broken = true;
        stream.end_told = false;
        stream.conclude(&options);
        let told = Phase::Over(Ending::Closed(CloseReason::Reset));
        assert_eq!(stream.phase, told);
    }

    #[test]
    fn room_is_told_of_only_after_a_refusal_and_at_half() {
        let mut stream = open(0);
        stream.output.extend_from_slice(&[0; 90]);
        assert_eq!(stream.next_event(&OPTIONS), None);
        stream.refused = true;
        stream.sent = 39;
        assert_eq!(stream.next_event(&OPTIONS), None);
        stream.sent = 40;
        assert_eq!(stream.next_event(&OPTIONS), Some(Event::Writable));
        stream.tell(Event::Writable, 0, &OPTIONS);
        assert_eq!(stream.next_event(&OPTIONS), None);
    }
}
