//! A program that serves requests, in a thread of the test.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use toolb_core::consumer::{Consumer, ControlEvent, Event};
use toolb_core::sys::epoll::{EDGE, Epoll, Events, IN};
use toolb_core::sys::eventfd::EventFd;

/// A consumer in a thread: answers with its name, `/hold` when it is let go on.
pub(super) struct Program {
    orders: Sender<Order>,
    bell: Arc<EventFd>,
    /// Hears of each request that it holds.
    pub(super) begun: Receiver<()>,
    thread: JoinHandle<Consumer>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Order {
    /// Answer what is held.
    GoOn,
    /// Take leave.
    Leave,
}

impl Program {
    pub(super) fn start(mut consumer: Consumer, name: &str) -> Self {
        let (orders, inbox) = channel();
        let (begin, begun) = channel();
        let bell = Arc::new(EventFd::new().unwrap());
        let (name, ring) = (name.to_owned(), bell.clone());
        consumer.ready();
        let thread = thread::spawn(move || {
            serve(&mut consumer, &name, &inbox, &ring, &begin);
            consumer
        });
        Self {
            orders,
            bell,
            begun,
            thread,
        }
    }

    pub(super) fn order(&self, order: Order) {
        self.orders.send(order).unwrap();
        self.bell.signal().unwrap();
    }

    /// Waits until it has ended by itself.
    pub(super) fn join(self) -> Consumer {
        self.thread.join().unwrap()
    }
}

fn serve(
    consumer: &mut Consumer,
    name: &str,
    inbox: &Receiver<Order>,
    bell: &EventFd,
    begin: &Sender<()>,
) {
    let epoll = Epoll::new().unwrap();
    epoll.add(&consumer.fd(), 0, IN | EDGE).unwrap();
    epoll.add(&consumer.control_fd(), 1, IN).unwrap();
    epoll.add(bell, 2, IN | EDGE).unwrap();
    let (mut ready, mut events, mut held) = (Events::with_capacity(3), Vec::new(), Vec::new());
    let mut leaving = false;
    let none = std::iter::empty::<(&[u8], &[u8])>;
    loop {
        for order in inbox.try_iter() {
            match order {
                Order::GoOn => {
                    for id in held.drain(..) {
                        let body = name.as_bytes();
                        let _ = consumer.respond_head(id, 200, -1, none(), body, true, true);
                    }
                }
                Order::Leave => {
                    consumer.leave();
                    leaving = true;
                }
            }
        }
        if consumer.poll(64, &mut events).unwrap() > 0 {
            for event in events.drain(..) {
                match event {
                    Event::Request { id, request, .. } if consumer.start(id) => {
                        if request.path() == b"/hold" {
                            held.push(id);
                            begin.send(()).unwrap();
                            continue;
                        }
                        let body = name.as_bytes();
                        let _ = consumer.respond_head(id, 200, -1, none(), body, true, true);
                    }
                    Event::Disconnected { id } => {
                        held.retain(|other| *other != id);
                        consumer.done(id);
                    }
                    _ => {}
                }
            }
            consumer.flush(false);
            continue;
        }
        if leaving && consumer.in_flight() == 0 {
            consumer.flush(true);
            return consumer.drained();
        }
        if consumer.arm() {
            epoll.wait(&mut ready, None).unwrap();
        }
        match consumer.control().unwrap() {
            ControlEvent::None => {}
            ControlEvent::Drain { .. } => leaving = true,
            ControlEvent::HangUp => return,
            ControlEvent::Error(_) => {}
        }
    }
}
