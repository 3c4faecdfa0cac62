//! Callbacks and clients that do anything at any time: what is promised of every stream holds, as the
//! service of the test checks at each callback, and nothing is left at the end.
#![forbid(unsafe_code)]

mod streams;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use toolb_core::config::{EngineConfig, Timeouts};
use toolb_core::engine::{Context, ServiceOptions, StreamError, StreamId, Streams, Target, Wait};
use toolb_core::sys::socket::Socket;

use streams::{Server, What, connect};

const CLIENTS: usize = 8;
const ROUNDS: usize = 60;
/// No more outgoing connections than this: each one may make others.
const OUTGOING: usize = 300;

/// Numbers that look random (xorshift64*).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % sides
    }
}

#[derive(Default)]
struct World {
    /// All that ever were, on every loop.
    known: Mutex<Vec<StreamId>>,
    seed: AtomicU64,
    outgoing: AtomicUsize,
    begun: AtomicUsize,
    ended: AtomicUsize,
    failed: AtomicUsize,
    address: Mutex<Option<Target>>,
}

impl World {
    fn dice(&self) -> Dice {
        Dice(
            self.seed
                .fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed)
                | 1,
        )
    }

    fn learn(&self, id: StreamId) {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.known.lock().unwrap().push(id);
    }

    fn act(&self, context: &mut Context<'_>, own: StreamId, dice: &mut Dice) {
        for _ in 0..dice.roll(4) {
            let id = match dice.roll(3) {
                0 => own,
                _ => {
                    let known = self.known.lock().unwrap();
                    match known.len() {
                        0 => own,
                        len => known[len - 1 - dice.roll(len.min(40))],
                    }
                }
            };
            let result = self.operate(context.streams(), id, dice);
            if id.loop_index() != context.loop_index() {
                assert_eq!(result, Err(StreamError::WrongLoop));
            }
        }
    }

    fn operate(
        &self,
        streams: &mut Streams,
        id: StreamId,
        dice: &mut Dice,
    ) -> Result<(), StreamError> {
        streams.tag(id)?;
        match dice.roll(16) {
            0 => streams.close(id)?,
            1 => streams.abort(id)?,
            2 => streams.time_out(id)?,
            3 | 4 => streams.want(id, Duration::from_micros(dice.roll(3000) as u64))?,
            5 => streams.want_bytes(id, dice.roll(6000), Wait::Default)?,
            6 => {
                let unread = streams.peek(id)?.len();
                streams.consume(id, dice.roll(unread + 1))?;
            }
            7 => assert_eq!(streams.consume(id, 1 << 20), Err(StreamError::TooMuch)),
            8 => {
                streams.recv(id, &mut [0; 100])?;
            }
            9 if self.outgoing.fetch_add(1, Ordering::Relaxed) < OUTGOING => {
                let target = self.address.lock().unwrap().clone();
                let timeout = Duration::from_millis(dice.roll(5) as u64);
                streams.connect(&target.unwrap(), timeout, 1)?;
            }
            _ => {
                let size = dice.roll(5000);
                streams.send(id, &[b'x'; 5000][..size])?;
                assert!(streams.unsent(id)? <= 20_000);
            }
        }
        Ok(())
    }
}

#[test]
fn whatever_is_done_each_stream_begins_and_ends_once() {
    for (seed, half_open) in [(1, false), (2, true)] {
        let world = Arc::new(World::default());
        world.seed.store(seed, Ordering::Relaxed);
        let config = EngineConfig {
            loops: Some(2),
            timeouts: Timeouts {
                send_idle: Duration::from_millis(20),
                ..Timeouts::default()
            },
            ..EngineConfig::default()
        };
        let options = ServiceOptions {
            default_timeout: Some(Duration::from_millis(5)),
            receive_limit: 5000,
            send_limit: 20_000,
            half_open,
        };
        let here = world.clone();
        let server = Server::with(config, options, move |context, what| {
            let mut dice = here.dice();
            match what {
                What::Accept(id) | What::Connect(id) => {
                    here.learn(id);
                    here.act(context, id, &mut dice);
                }
                What::Receive(id) | What::Writable(id) => here.act(context, id, &mut dice),
                What::Timeout(id) => match dice.roll(3) {
                    0 => context.streams().time_out(id).unwrap(),
                    _ => here.act(context, id, &mut dice),
                },
                What::Close(id, _) => {
                    here.ended.fetch_add(1, Ordering::Relaxed);
                    here.act(context, id, &mut dice);
                }
                What::ConnectFail(id, _) => {
                    here.failed.fetch_add(1, Ordering::Relaxed);
                    here.act(context, id, &mut dice);
                }
                What::Init | What::Drain | What::Exit => {}
            }
        });
        let target = Target::Tcp(server.address.parse().unwrap());
        *world.address.lock().unwrap() = Some(target);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let (address, mut dice) = (server.address.clone(), world.dice());
                std::thread::spawn(move || (0..ROUNDS).for_each(|_| annoy(&address, &mut dice)))
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        let _still_there: Vec<_> = (0..20).map(|_| server.connect()).collect();
        server.engine.stop();
        let (begun, ended) = (&world.begun, &world.ended);
        assert_eq!(begun.load(Ordering::Relaxed), ended.load(Ordering::Relaxed));
        assert!(begun.load(Ordering::Relaxed) > CLIENTS * ROUNDS / 2);
        let stats = server.engine.stats();
        assert_eq!(
            stats.streams_accepted + stats.streams_connected,
            stats.streams_closed
        );
    }
}

/// A client that does not know what it wants. Errors are what it has to expect.
fn annoy(address: &str, dice: &mut Dice) {
    if dice.roll(8) == 0 {
        let (socket, _) = Socket::connect_tcp(address.parse().unwrap()).unwrap();
        let _ = socket.send(b"gone at once");
        return socket.reset_on_close();
    }
    let mut client = connect(address);
    for _ in 0..dice.roll(6) {
        let outcome = match dice.roll(4) {
            0 | 1 => client.write(&[b'y'; 9000][..dice.roll(9000)]),
            2 => client.shutdown(Shutdown::Write).map(|()| 0),
            // Whoever is silent is timed out before long, so this does not hang.
            _ => client.read(&mut [0; 3000]),
        };
        if outcome.is_err() {
            return;
        }
    }
}
