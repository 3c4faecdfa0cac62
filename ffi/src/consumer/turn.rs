//! A consumer's turn: looking for events, handing them out, sleeping.

use std::io;
use std::time::{Duration, Instant};

use toolb_core::consumer::{Consumer, ControlEvent, Event, ExchangeId, StreamEvent, Watch};
use toolb_core::engine::EventFd;

use super::live::{Live, number};
use super::routes::Routes;
use super::{
    TOOLB_EVENT_BODY, TOOLB_EVENT_BODY_ABORTED, TOOLB_EVENT_CANCELLED, TOOLB_EVENT_DRAIN,
    TOOLB_EVENT_END, TOOLB_EVENT_HANG_UP, TOOLB_EVENT_NONE, TOOLB_EVENT_REQUEST,
    TOOLB_EVENT_STREAM_DATA, TOOLB_EVENT_STREAM_OPEN, TOOLB_EVENT_STREAM_TIMEOUT,
    TOOLB_EVENT_WRITABLE, toolb_event,
};
use crate::exchange::{EMPTY, slice};
use crate::last_error::fail;
use crate::request::BusRequest;
use crate::toolb_status;

/// Events taken in a turn if the program does not say how many.
const BUDGET: usize = 64;
/// A program that never sleeps looks at the control socket once in so many turns.
const CONTROL_EVERY: u32 = 64;

/// A consumer and what the program holds of it.
pub(crate) struct Inner {
    pub(super) consumer: Consumer,
    watch: Watch,
    /// For a program that serves by handlers.
    pub(super) routes: Routes,
    /// By slot.
    pub(super) live: Box<[Live]>,
    /// Found and not taken yet, the next one last.
    events: Vec<Event>,
    /// Body bytes that the program is looking at: whose, and how many.
    lent: Option<(ExchangeId, usize)>,
    pub(super) lent_bytes: Vec<u8>,
    /// The program blocks, or is about to.
    armed: bool,
    turns: u32,
    pub(super) draining: bool,
    drain_is_news: bool,
    hung_up: bool,
    /// Nothing will come any more.
    over: bool,
    over_is_news: bool,
    /// The engine's complaint.
    farewell: Option<String>,
    /// Why nothing works any more.
    broken: Option<String>,
}

impl Inner {
    pub(super) fn new(consumer: Consumer, stop: &EventFd) -> io::Result<Self> {
        let watch = Watch::new(&consumer)?;
        watch.add_bell(stop)?;
        Ok(Self {
            live: (0..consumer.slots()).map(|_| Live::free()).collect(),
            consumer,
            watch,
            routes: Routes::default(),
            events: Vec::with_capacity(BUDGET),
            lent: None,
            lent_bytes: Vec::new(),
            armed: false,
            turns: 0,
            draining: false,
            drain_is_news: false,
            hung_up: false,
            over: false,
            over_is_news: false,
            farewell: None,
            broken: None,
        })
    }

    pub(super) fn ready(&mut self) -> Result<(), toolb_status> {
        self.check()?;
        self.consumer.ready();
        Ok(())
    }

    pub(super) fn fail(&mut self, reason: &str, permanent: bool) -> Result<(), toolb_status> {
        self.check()?;
        self.consumer.fail(reason, permanent);
        Ok(())
    }

    pub(super) fn fd(&self) -> i32 {
        self.watch.fd()
    }

    /// How many events there are to take.
    pub(super) fn poll(&mut self, max: usize) -> Result<usize, toolb_status> {
        self.check()?;
        self.take_back();
        if self.events.is_empty() {
            self.check_over()?;
            self.consumer.flush(false);
            self.turns = self.turns.wrapping_add(1);
            if std::mem::take(&mut self.armed) || self.turns.is_multiple_of(CONTROL_EVERY) {
                self.look(Some(Duration::ZERO))?;
            }
            let budget = if max == 0 { BUDGET } else { max };
            if let Err(error) = self.consumer.poll(budget, &mut self.events) {
                return Err(self.break_off(error.to_string()));
            }
            self.events.reverse();
            if self.events.is_empty() && self.is_ending() && !self.over {
                if !self.hung_up {
                    self.consumer.drained();
                }
                self.over = true;
                self.over_is_news = true;
            }
        }
        let news = usize::from(self.drain_is_news) + usize::from(self.over_is_news);
        Ok(self.events.len() + news)
    }

    /// Hands the next event out.
    pub(super) fn next(&mut self, event: &mut toolb_event) -> Result<(), toolb_status> {
        self.check()?;
        self.take_back();
        *event = toolb_event {
            struct_size: event.struct_size,
            ..NONE
        };
        if std::mem::take(&mut self.drain_is_news) {
            event.kind = TOOLB_EVENT_DRAIN;
            return Ok(());
        }
        while let Some(found) = self.events.pop() {
            if self.hand_out(found, event) {
                return Ok(());
            }
        }
        if std::mem::take(&mut self.over_is_news) {
            event.kind = TOOLB_EVENT_HANG_UP;
        }
        Ok(())
    }

    /// Whether the program may block now.
    pub(super) fn arm(&mut self) -> Result<bool, toolb_status> {
        self.check()?;
        self.take_back();
        if self.has_news() {
            self.consumer.flush(true);
            return Ok(false);
        }
        self.check_over()?;
        self.armed = self.consumer.arm();
        Ok(self.armed)
    }

    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> Result<(), toolb_status> {
        if !self.arm()? {
            return Ok(());
        }
        self.armed = false;
        let until = timeout.map(|timeout| Instant::now() + timeout);
        // Nothing before the time is over is a signal.
        match self.look(timeout)? || until.is_none_or(|until| Instant::now() < until) {
            true => Ok(()),
            false => Err(toolb_status::TOOLB_TIMEOUT),
        }
    }

    pub(super) fn flush(&mut self) -> Result<(), toolb_status> {
        self.check()?;
        self.consumer.flush(true);
        Ok(())
    }

    /// No more requests are wanted.
    pub(super) fn leave(&mut self) -> Result<(), toolb_status> {
        self.check()?;
        if !std::mem::replace(&mut self.draining, true) {
            self.consumer.leave();
        }
        Ok(())
    }

    /// Drops requests that were found and not begun: they are for other consumers.
    pub(super) fn leave_requests(&mut self) {
        self.events
            .retain(|event| !matches!(event, Event::Request { .. }));
    }

    /// The exchange of this id, if the program holds it.
    pub(super) fn find(&mut self, id: ExchangeId) -> Option<&mut Live> {
        self.live
            .get_mut(usize::from(id.slot))
            .filter(|live| live.generation == id.generation)
    }

    /// An exchange is over: whatever the program had of it ends.
    pub(super) fn forget(&mut self, id: ExchangeId) {
        let Some(live) = self.find(id) else {
            return;
        };
        if let Some(request) = live.end() {
            self.consumer.recycle(request.head.into_bytes());
        }
    }

    /// Body bytes are used up, and more are welcome.
    pub(super) fn acknowledge(&mut self, id: ExchangeId, bytes: usize) {
        let Some(live) = self.find(id) else {
            return;
        };
        if live.paused {
            live.unacknowledged += bytes;
        } else if live.more_body {
            self.consumer.want_body(id);
            self.consumer.consumed(id, bytes);
        }
    }

    /// Turns what the bus says into what C is told. False: it concerns nobody.
    fn hand_out(&mut self, found: Event, event: &mut toolb_event) -> bool {
        match found {
            Event::Request {
                id,
                request,
                more_body,
            } => {
                if !self.consumer.start(id) {
                    self.consumer.recycle(request.into_bytes());
                    return false;
                }
                let len = request.body().len();
                let request = BusRequest {
                    head: request,
                    collected: None,
                };
                let live = &mut self.live[usize::from(id.slot)];
                live.begin(id.generation, request, more_body);
                event.exchange = number(id);
                if live.is_stream {
                    event.kind = TOOLB_EVENT_STREAM_OPEN;
                } else {
                    event.kind = TOOLB_EVENT_REQUEST;
                    event.flags = if more_body { 0 } else { TOOLB_EVENT_END };
                    event.data = slice(live.request.body());
                    event.request = live.request();
                }
                self.lent = more_body.then_some((id, len));
                true
            }
            Event::Stream { id } => self.hand_out_of_stream(id, event),
            Event::Body { id, data, end } => self.lend(id, data, end, TOOLB_EVENT_BODY, event),
            Event::Disconnected { id } => {
                let Some(live) = self.find(id) else {
                    self.consumer.done(id);
                    return false;
                };
                live.gone = true;
                live.tell(event, TOOLB_EVENT_CANCELLED, id);
                true
            }
            Event::Writable { id } => {
                let Some(live) = self.find(id) else {
                    return false;
                };
                live.full = false;
                live.tell(event, TOOLB_EVENT_WRITABLE, id);
                std::mem::take(&mut live.told_full)
            }
            Event::RequestAborted { id } => {
                let Some(live) = self.find(id) else {
                    return false;
                };
                live.more_body = false;
                live.tell(event, TOOLB_EVENT_BODY_ABORTED, id);
                true
            }
        }
    }

    /// Hands out the next event of a stream.
    fn hand_out_of_stream(&mut self, id: ExchangeId, event: &mut toolb_event) -> bool {
        let Some(found) = self.consumer.stream_event(id) else {
            return false;
        };
        if self.consumer.has_stream_event(id) {
            self.events.push(Event::Stream { id });
        }
        match found {
            StreamEvent::Data { data, end } => {
                self.lend(id, data, end, TOOLB_EVENT_STREAM_DATA, event)
            }
            StreamEvent::Timeout => {
                let Some(live) = self.find(id) else {
                    return false;
                };
                live.tell(event, TOOLB_EVENT_STREAM_TIMEOUT, id);
                true
            }
        }
    }

    /// Lends bytes to the program for its next look.
    fn lend(
        &mut self,
        id: ExchangeId,
        data: Vec<u8>,
        end: bool,
        kind: u32,
        event: &mut toolb_event,
    ) -> bool {
        let Some(live) = self.find(id) else {
            self.consumer.recycle(data);
            return false;
        };
        live.more_body = !end;
        live.tell(event, kind, id);
        event.flags = if end { TOOLB_EVENT_END } else { 0 };
        event.data = slice(&data);
        self.lent = Some((id, data.len()));
        self.lent_bytes = data;
        true
    }

    /// The program has seen the body bytes it was lent.
    fn take_back(&mut self) {
        let Some((id, bytes)) = self.lent.take() else {
            return;
        };
        let buffer = std::mem::take(&mut self.lent_bytes);
        self.consumer.recycle(buffer);
        self.acknowledge(id, bytes);
    }

    /// Waits on the descriptors, and hears what the control socket has to say. False: nothing came.
    fn look(&mut self, timeout: Option<Duration>) -> Result<bool, toolb_status> {
        let woken = match self.watch.wait(timeout) {
            Ok(woken) => woken,
            Err(error) => return Err(self.break_off(format!("waiting for events fails: {error}"))),
        };
        while woken.control && !self.hung_up {
            match self.consumer.control() {
                Ok(ControlEvent::None) => break,
                Ok(ControlEvent::Drain { .. }) => {
                    self.drain_is_news = !self.draining;
                    self.draining = true;
                }
                Ok(ControlEvent::Error(text)) => self.farewell = Some(text),
                Ok(ControlEvent::HangUp) => {
                    self.hung_up = true;
                    self.watch.forget_control(&self.consumer);
                }
                Err(error) => return Err(self.break_off(error.to_string())),
            }
        }
        Ok(woken.any)
    }

    /// Whether the end has come as soon as nothing is found any more.
    fn is_ending(&self) -> bool {
        self.hung_up || self.draining && self.consumer.in_flight() == 0
    }

    fn has_news(&self) -> bool {
        !self.events.is_empty()
            || self.drain_is_news
            || self.over_is_news
            || self.is_ending() && !self.over
    }

    pub(super) fn check(&self) -> Result<(), toolb_status> {
        match &self.broken {
            None => Ok(()),
            Some(text) => Err(fail(toolb_status::TOOLB_BUS_VIOLATION, text)),
        }
    }

    fn check_over(&self) -> Result<(), toolb_status> {
        if !self.over || self.over_is_news {
            return Ok(());
        }
        let text = match (&self.farewell, self.hung_up) {
            (Some(text), _) => text,
            (None, true) => "the engine has gone",
            (None, false) => "the engine drains, and all is done",
        };
        Err(fail(toolb_status::TOOLB_HANG_UP, text))
    }

    #[cold]
    fn break_off(&mut self, why: String) -> toolb_status {
        let status = fail(toolb_status::TOOLB_BUS_VIOLATION, &why);
        self.broken = Some(why);
        status
    }
}

impl Live {
    fn tell(&self, event: &mut toolb_event, kind: u32, id: ExchangeId) {
        event.kind = kind;
        event.exchange = number(id);
        event.user_data = self.user_data;
    }
}

pub(super) const NONE: toolb_event = toolb_event {
    struct_size: 0,
    kind: TOOLB_EVENT_NONE,
    flags: 0,
    exchange: 0,
    data: EMPTY,
    request: std::ptr::null(),
    user_data: std::ptr::null_mut(),
};
