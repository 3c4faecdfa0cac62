//! What the program under test starts in place of a Python.

use std::env;
use std::fs;
use std::process;
use std::time::Duration;

use toolb_core::consumer::{AttachError, Consumer, ConsumerOptions, ControlEvent, Event, Leash};
use toolb_core::sys::epoll::{EDGE, Epoll, Events, IN};

/// To be called by a test named `worker` in each test program: does nothing unless it is run by the
/// script that `toolb` takes for a Python.
pub(crate) fn main() {
    let (Ok(bus), Ok(target)) = (env::var("TOOLB_BUS"), env::var("TEST_TARGET")) else {
        return;
    };
    match target.as_str() {
        "exits:app" => {
            eprintln!("the reason");
            process::exit(3);
        }
        "ends:app" => process::exit(1),
        _ => {}
    }
    if let Ok(supervisor) = env::var("TOOLB_SUPERVISOR") {
        process::exit(visit(&bus, &Leash::take(&supervisor).unwrap(), &target));
    }
    let mut consumer = Consumer::attach(&bus, &ConsumerOptions::default()).unwrap();
    if target == "broken:app" {
        consumer.fail("no module named \"broken\"; look at --app-dir", true);
        process::exit(3);
    }
    consumer.ready();
    serve(&mut consumer, None);
    process::exit(0);
}

/// Serves the engines that come and go.
fn visit(bus: &str, leash: &Leash, target: &str) -> i32 {
    if target == "broken:app" {
        leash.fail("no module named \"broken\"; look at --app-dir", true);
        return 3;
    }
    leash.ready();
    loop {
        let moment = Duration::from_millis(50);
        match Consumer::attach_within(bus, &ConsumerOptions::default(), moment) {
            Ok(mut consumer) => {
                consumer.ready();
                if !serve(&mut consumer, Some(leash)) {
                    return 0;
                }
            }
            Err(error) if error.may_pass() || matches!(error, AttachError::Refused(_)) => {
                if leash.word() != ControlEvent::None {
                    return 0;
                }
            }
            Err(error) => {
                leash.fail(&error.to_string(), true);
                return 3;
            }
        }
    }
}

/// False: it is to end.
fn serve(consumer: &mut Consumer, leash: Option<&Leash>) -> bool {
    let epoll = Epoll::new().unwrap();
    epoll.add(&consumer.fd(), 0, IN | EDGE).unwrap();
    epoll.add(&consumer.control_fd(), 1, IN).unwrap();
    if let Some(leash) = leash {
        epoll.add(leash, 2, IN).unwrap();
    }
    let (mut ready, mut events) = (Events::with_capacity(3), Vec::new());
    let (mut draining, mut again) = (false, true);
    loop {
        if consumer.poll(64, &mut events).unwrap() > 0 {
            for event in events.drain(..) {
                answer(consumer, event);
            }
            consumer.flush(false);
            continue;
        }
        if draining && consumer.in_flight() == 0 {
            consumer.drained();
            return again;
        }
        if consumer.arm() {
            epoll.wait(&mut ready, None).unwrap();
        }
        if let Some(leash) = leash {
            match leash.word() {
                ControlEvent::None => {}
                ControlEvent::HangUp => return false,
                _ => again = false,
            }
            if !again && !draining {
                draining = true;
                consumer.leave();
            }
        }
        match consumer.control().unwrap() {
            ControlEvent::None => {}
            ControlEvent::Drain { .. } => draining = true,
            ControlEvent::HangUp | ControlEvent::Error(_) => return again,
        }
    }
}

/// Says which process it is; `/hold` only after something was written to the pipe.
fn answer(consumer: &mut Consumer, event: Event) {
    let Event::Request { id, request, .. } = event else {
        return;
    };
    if !consumer.start(id) {
        return;
    }
    if request.path() == b"/hold" {
        eprintln!("holding");
        fs::read(env::var_os("TEST_FIFO").unwrap()).unwrap();
    }
    let body = process::id().to_string();
    let fields = std::iter::empty::<(&[u8], &[u8])>();
    // An error means that the client has gone.
    let _ = consumer.respond_head(id, 200, -1, fields, body.as_bytes(), true, true);
}
