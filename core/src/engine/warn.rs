//! What a loop tells the person who runs the server: faults of applications with single requests, and
//! requests that were refused for want of room or time. Each kind is told once a second at most, with
//! the number of those left out, and with what would mend it: settings by their names, as a program has them
//! as options and a library as fields.

use std::fmt;
use std::time::Duration;

use crate::log::access::Said;
use crate::log::{self, Level, Throttle};

use super::event_loop::Loop;

/// Why the pool takes no more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Crowd {
    /// As many are in it as may.
    Inside,
    /// As many wait as may.
    Line,
}

impl Loop {
    /// An application did something wrong with a request.
    #[cold]
    pub(super) fn blame(&mut self, key: u64, why: &str) {
        static TOLD: Throttle = Throttle::new();
        let request = self.named(key);
        log::limited(&TOLD, Level::Error, format_args!("{request}{why}"));
    }

    /// A request, or a stream, is refused as there are too many.
    #[cold]
    pub(super) fn warn_of_crowd(&mut self, key: u64, crowd: Crowd) {
        static INSIDE: Throttle = Throttle::of(1);
        static LINE: Throttle = Throttle::of(1);
        let limit = self.shared.config.limit_concurrency.unwrap_or(0);
        let size = self.shared.config.queue_size;
        let waiting = self.shared.pool.waiting();
        let what = self.refused(key);
        let level = Level::Warning;
        match crowd {
            Crowd::Inside => log::limited(
                &INSIDE,
                level,
                format_args!(
                    "{what}, as {limit} {}, as many as limit-concurrency allows",
                    match limit {
                        1 => "request is in flight or waits",
                        _ => "requests are in flight or wait",
                    },
                ),
            ),
            Crowd::Line if size == 0 => log::limited(
                &LINE,
                level,
                format_args!(
                    "{what}, as no worker has room and queue-size 0 lets none wait; more workers have more"
                ),
            ),
            Crowd::Line => log::limited(
                &LINE,
                level,
                format_args!(
                    "{what}, as {waiting} {} for a worker already; more workers take them sooner, queue-size \
                     ({size}) lets more wait",
                    match waiting {
                        1 => "request waits",
                        _ => "requests wait",
                    },
                ),
            ),
        };
    }

    /// A request, or a stream, has waited too long.
    #[cold]
    pub(super) fn warn_of_wait(&mut self, key: u64) {
        static TOLD: Throttle = Throttle::of(1);
        let config = &self.shared.config;
        let (queue, response) = (config.queue_timeout, config.timeouts.response);
        let what = self.refused(key);
        // A stream has no response.
        let (limit, setting) = match !what.0 && !response.is_zero() && response < queue {
            true => (response, "timeout-response"),
            false => (queue, "queue-timeout"),
        };
        let text = format_args!(
            "{what}, as no worker took it within {}; more workers take more, {setting} lets it wait longer",
            Seconds(limit)
        );
        log::limited(&TOLD, Level::Warning, text);
    }

    /// The application has taken too long.
    #[cold]
    pub(super) fn warn_of_lateness(&mut self, key: u64) {
        static TOLD: Throttle = Throttle::of(1);
        let limit = self.shared.config.timeouts.response;
        let request = self.named(key);
        let text = format_args!(
            "{request}504, as the application took longer than {} to begin its response; timeout-response \
             gives more time",
            Seconds(limit)
        );
        log::limited(&TOLD, Level::Warning, text);
    }

    /// A raw connection is one too many.
    #[cold]
    pub(super) fn warn_of_streams(&self) {
        static TOLD: Throttle = Throttle::of(1);
        let limit = self.shared.config.limit_streams;
        let text = format_args!(
            "a stream was refused, as {limit} {} open, as many as limit-streams allows",
            if limit == 1 { "is" } else { "are" }
        );
        log::limited(&TOLD, Level::Warning, text);
    }

    /// What becomes of what is at hand on a connection.
    fn refused(&mut self, key: u64) -> Refused<'_> {
        let raw = self.conns.get_mut(key).is_some_and(|conn| conn.raw);
        Refused(raw, self.named(key))
    }

    /// The request at hand, as it begins a line.
    fn named(&mut self, key: u64) -> Named<'_> {
        let exchange = self.exchange(key);
        Named(exchange.map(|exchange| &exchange.said))
    }
}

/// `GET /path: `, or nothing.
struct Named<'a>(Option<&'a Said>);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let request = self.0.map(Said::request).unwrap_or_default();
        match request.is_empty() {
            true => Ok(()),
            false => write!(f, "{request}: "),
        }
    }
}

/// `GET /path: 503`, or whatever becomes of a stream.
struct Refused<'a>(bool, Named<'a>);

impl fmt::Display for Refused<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            true => f.write_str("a stream was refused"),
            false => write!(f, "{}503", self.1),
        }
    }
}

/// A time as people write it: `0.3 s`.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} s", self.0.as_secs_f64())
    }
}
