//! Timers and watched descriptors of handlers, behind real sockets.
#![forbid(unsafe_code)]

mod loopback;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use toolb_core::config::EngineConfig;
use toolb_core::engine::{
    Context, Engine, Handler, Interest, Request, Response, Routes, Step, TimerId, WatchId,
    WithContext,
};

use loopback::{address_of, any_port};

fn start(handler: impl Handler + 'static) -> Engine {
    let mut routes = Routes::default();
    routes.inline.insert("GET", "/", Arc::new(handler)).unwrap();
    let mut engine = Engine::bind(EngineConfig::default(), routes, &[any_port()]).unwrap();
    engine.start().unwrap();
    engine
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

/// Asks once and waits for the answer.
fn ask(engine: &Engine) {
    let mut stream = TcpStream::connect(address_of(engine)).unwrap();
    stream.write_all(REQUEST).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

fn handler(
    run: impl Fn(&mut Context<'_>) + Send + Sync,
) -> WithContext<impl Fn(&mut Context<'_>, &Request<'_>, &mut Response) -> Step + Send + Sync> {
    WithContext(
        move |context: &mut Context<'_>, _: &Request<'_>, _: &mut Response| {
            run(context);
            Step::Done
        },
    )
}

#[test]
fn timers_fire_on_their_loop_in_order() {
    let (events, told) = channel();
    let engine = start(handler(move |context| {
        let start = |context: &mut Context<'_>, ms, events: Sender<_>| {
            let begun = context.now();
            context.timer(Duration::from_millis(ms), move |context| {
                // Never before its time; how much later is the machine's affair.
                assert!(context.now() >= begun + ms * 1_000_000);
                events.send((ms, std::thread::current().id())).unwrap();
            })
        };
        start(context, 20, events.clone());
        start(context, 0, events.clone());
        let cancelled = start(context, 5, events.clone());
        start(context, 10, events.clone());
        assert!(context.cancel_timer(cancelled));
        assert!(!context.cancel_timer(cancelled));
        assert!(!context.cancel_timer(TimerId::from_bits(u64::MAX)));
        events.send((1, std::thread::current().id())).unwrap();
    }));
    ask(&engine);
    let fired: Vec<_> = (0..4).map(|_| told.recv().unwrap()).collect();
    assert_eq!(
        fired.iter().map(|(ms, _)| *ms).collect::<Vec<_>>(),
        [1, 0, 10, 20]
    );
    assert!(fired.iter().all(|(_, thread)| *thread == fired[0].1));
}

#[test]
fn slow_handlers_do_not_hold_timers_up() {
    let (begun, has_begun) = channel();
    let (go_on, told) = channel();
    let (fired, has_fired) = channel();
    let first = Mutex::new(Some((fired, told)));
    let engine = start(handler(move |context| {
        begun.send(()).unwrap();
        if let Some((fired, told)) = first.lock().unwrap().take() {
            context.timer(Duration::ZERO, move |_| fired.send(()).unwrap());
            told.recv().unwrap();
        }
        // not-sync: the handler is slow on purpose, slower than a turn should be
        std::thread::sleep(Duration::from_millis(60));
    }));
    let [mut one, mut other] = [(); 2].map(|()| TcpStream::connect(address_of(&engine)).unwrap());
    while engine.stats().accepted < 2 {
        std::thread::yield_now();
    }
    one.write_all(REQUEST).unwrap();
    has_begun.recv().unwrap();
    // The next turn has something to do, too.
    other.write_all(REQUEST).unwrap();
    go_on.send(()).unwrap();
    // In that turn the timer is due, before answers are sent.
    assert_eq!(other.read(&mut [0]).unwrap(), 1);
    has_fired.try_recv().unwrap();
}

#[test]
fn a_timer_may_start_the_next_one() {
    fn again(context: &mut Context<'_>, left: u32, done: Sender<()>) {
        context.timer(Duration::ZERO, move |context| match left {
            0 => done.send(()).unwrap(),
            _ => again(context, left - 1, done),
        });
    }
    let (done, is_done) = channel();
    let engine = start(handler(move |context| again(context, 100, done.clone())));
    ask(&engine);
    is_done.recv().unwrap();
}

#[test]
fn a_watched_descriptor_is_reported_until_it_is_read_or_let_go_of() {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let theirs = Mutex::new(Some(theirs));
    let (events, told) = channel();
    let engine = start(handler(move |context| {
        let mut socket = theirs.lock().unwrap().take().unwrap();
        let own = Arc::new(Mutex::new(None::<WatchId>));
        let events = events.clone();
        let id = {
            let own = own.clone();
            let watched = socket.try_clone().unwrap();
            context.watch(watched.as_fd(), Interest::Read, move |context, ready| {
                assert!(ready.readable);
                // One byte a turn: what is left is reported again.
                let mut byte = [0];
                match socket.read(&mut byte).unwrap() {
                    0 => {
                        let id = own.lock().unwrap().unwrap();
                        assert!(context.unwatch(id));
                        assert!(!context.unwatch(id));
                        events.send(None).unwrap();
                    }
                    _ => events.send(Some(byte[0])).unwrap(),
                }
            })
        };
        *own.lock().unwrap() = Some(id.unwrap());
    }));
    ask(&engine);
    ours.write_all(b"abc").unwrap();
    for byte in b"abc" {
        assert_eq!(told.recv().unwrap(), Some(*byte));
    }
    drop(ours);
    assert_eq!(told.recv().unwrap(), None);
    // Its function, and with it the sender, has been dropped but for the one of the handler.
    drop(engine);
    assert!(told.recv().is_err());
}

#[test]
fn what_cannot_be_watched_is_refused() {
    let (events, told) = channel();
    let engine = start(handler(move |context| {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let watched = context.watch(file.as_fd(), Interest::Both, |_, _| {});
        events.send(watched.is_err()).unwrap();
        assert!(!context.unwatch(WatchId::from_bits(0)));
    }));
    ask(&engine);
    assert!(told.recv().unwrap());
}

#[test]
fn what_still_waits_is_dropped_with_the_loop() {
    struct Told(Sender<&'static str>, &'static str);
    impl Drop for Told {
        fn drop(&mut self) {
            self.0.send(self.1).unwrap();
        }
    }
    let (events, told) = channel();
    let (kept, _other) = UnixStream::pair().unwrap();
    let engine = start(handler(move |context| {
        let timer = Told(events.clone(), "timer");
        context.timer(Duration::from_secs(3600), move |_| {
            let _timer = &timer;
            panic!("it was never due");
        });
        let watch = Told(events.clone(), "watch");
        context
            .watch(kept.as_fd(), Interest::Read, move |_, _| {
                let _watch = &watch;
                panic!("nothing ever came");
            })
            .unwrap();
    }));
    ask(&engine);
    engine.stop();
    let mut dropped = [told.recv().unwrap(), told.recv().unwrap()];
    dropped.sort_unstable();
    assert_eq!(dropped, ["timer", "watch"]);
}
