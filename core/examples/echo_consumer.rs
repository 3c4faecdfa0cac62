//! A consumer without an application: answers "Hello, World!", and bodies with themselves. For
//! benchmarks of the bus, and to see how a consumer's loop goes. An engine starts it with TOOLB_BUS
//! set.

use std::{collections::HashMap, error::Error, process::ExitCode};

use toolb_core::{
    consumer::{Consumer, ConsumerOptions, ControlEvent, Event, ExchangeId, Sent},
    sys::epoll::{EDGE, Epoll, Events, IN},
};

/// Bodies on their way back: how many of their bytes are to be acknowledged when there is room.
type Echoes = HashMap<ExchangeId, usize>;

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo_consumer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<(), Box<dyn Error>> {
    let bus = std::env::var("TOOLB_BUS").map_err(|_| "TOOLB_BUS is not set: run it under toolb")?;
    let options = ConsumerOptions {
        name: String::from("echo"),
        ..ConsumerOptions::default()
    };
    let mut consumer = Consumer::attach(&bus, &options)?;
    let epoll = Epoll::new()?;
    epoll.add(&consumer.fd(), 0, IN | EDGE)?;
    epoll.add(&consumer.control_fd(), 1, IN)?;
    consumer.ready();

    let mut ready = Events::with_capacity(2);
    let mut events = Vec::new();
    let mut echoes = Echoes::new();
    let mut draining = false;
    loop {
        if consumer.poll(64, &mut events)? > 0 {
            for event in events.drain(..) {
                answer(&mut consumer, event, &mut echoes);
            }
            consumer.flush(false);
            continue;
        }
        if draining && consumer.in_flight() == 0 {
            consumer.drained();
            return Ok(());
        }
        if !consumer.arm() {
            continue;
        }
        epoll.wait(&mut ready, None)?;
        match consumer.control()? {
            ControlEvent::None => {}
            ControlEvent::Drain { .. } => draining = true,
            ControlEvent::HangUp => return Ok(()),
            ControlEvent::Error(text) => return Err(text.into()),
        }
    }
}

fn answer(consumer: &mut Consumer, event: Event, echoes: &mut Echoes) {
    match event {
        Event::Request {
            id,
            request,
            more_body,
        } => {
            if !consumer.start(id) {
                return;
            }
            let body = request.body();
            let fields: [(&[u8], &[u8]); 1] = [(b"content-type", b"text/plain; charset=utf-8")];
            let hello = body.is_empty() && !more_body;
            let body = if hello { b"Hello, World!" } else { body };
            let end = !more_body;
            // An error means that the client has gone, which is reported as an event.
            let _ = consumer.respond_head(id, 200, -1, fields.into_iter(), body, end, end);
            if more_body {
                consumer.want_body(id);
                consumer.consumed(id, body.len());
                echoes.insert(id, 0);
            }
            consumer.recycle(request.into_bytes());
        }
        // It takes none.
        Event::Stream { .. } => {}
        Event::Body { id, data, end } => {
            match consumer.respond_body(id, &data, end, end) {
                Ok(Sent::Above) if !end => *echoes.entry(id).or_default() += data.len(),
                _ => consumer.consumed(id, data.len()),
            }
            if end {
                echoes.remove(&id);
            }
            consumer.recycle(data);
        }
        Event::Writable { id } => {
            if let Some(held) = echoes.get_mut(&id) {
                consumer.consumed(id, std::mem::take(held));
            }
        }
        Event::Disconnected { id } => {
            echoes.remove(&id);
            consumer.done(id);
        }
        Event::RequestAborted { id } => {
            echoes.remove(&id);
            consumer.abort(id);
        }
    }
}
