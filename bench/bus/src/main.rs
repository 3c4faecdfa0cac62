//! Round trips between two processes, each pinned to a core of its own: toolB's rings beside a bare
//! cache line, bare lines, a socket pair, a pipe and iceoryx2, in interleaved rounds.
//!
//! Prints one line of JSON for each measurement. `bench/trips.py` makes a table of them.

mod kernel;
mod lines;
mod measure;
#[cfg(feature = "iceoryx2")]
mod middleware;
mod process;
mod rings;
mod word;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use measure::{Limit, Measured};
use process::Peer;

/// Whatever ends a measurement is fatal.
type Outcome<T> = Result<T, Box<dyn Error>>;

/// The side that asks. Each trip sends `message`, whose first eight bytes number it, and leaves what
/// came back in `answer`.
trait Asker {
    fn trip(&mut self, message: &[u8], answer: &mut Vec<u8>) -> Outcome<()>;

    /// How often it slept and how often it rang for its peer, if it counts that.
    fn sleeps(&self) -> Option<(u64, u64)> {
        None
    }
}

/// One way for bytes to go from one process to another and back.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    /// Lengths of the message, in bytes.
    sizes: &'static [usize],
    ask: fn(&Peer, usize) -> Outcome<Box<dyn Asker>>,
    answer: fn(&Peer, usize) -> Outcome<()>,
}

const WAYS: &[Way] = &[
    Way {
        name: "bare cache line, polling",
        sizes: &[8],
        ask: word::ask,
        answer: word::answer,
    },
    Way {
        name: "bare lines in place, polling",
        sizes: &[64, 8, 1024],
        ask: lines::ask_in_place,
        answer: lines::answer_in_place,
    },
    Way {
        name: "bare lines in turn, polling",
        sizes: &[64, 8, 1024],
        ask: lines::ask_in_turn,
        answer: lines::answer_in_turn,
    },
    Way {
        name: "rings, polling",
        sizes: &[64, 8, 1024],
        ask: rings::ask_polling,
        answer: rings::answer_polling,
    },
    #[cfg(feature = "iceoryx2")]
    Way {
        name: "iceoryx2 publish-subscribe, polling",
        sizes: &[64, 1024],
        ask: middleware::ask_topic,
        answer: middleware::answer_topic,
    },
    #[cfg(feature = "iceoryx2")]
    Way {
        name: "iceoryx2 request-response, polling",
        sizes: &[64, 1024],
        ask: middleware::ask_service,
        answer: middleware::answer_service,
    },
    Way {
        name: "rings, sleeping",
        sizes: &[64, 1024],
        ask: rings::ask_sleeping,
        answer: rings::answer_sleeping,
    },
    Way {
        name: "Unix socket pair",
        sizes: &[64, 1024],
        ask: kernel::ask_socket,
        answer: kernel::answer_socket,
    },
    Way {
        name: "pipe",
        sizes: &[64, 1024],
        ask: kernel::ask_pipe,
        answer: kernel::answer_pipe,
    },
];

const USAGE: &str =
    "usage: toolb-bench-bus [--rounds N] [--millis N | --trips N] [--only WAY] [--bytes N]";

fn main() -> ExitCode {
    match run(std::env::args().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("toolb-bench-bus: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Vec<String>) -> Outcome<()> {
    if let [first, name, bytes] = &arguments[..]
        && first == process::PEER
    {
        let way = WAYS.iter().find(|way| way.name == name).ok_or(USAGE)?;
        return (way.answer)(&Peer::inherited()?, bytes.parse()?);
    }
    let (mut rounds, mut limit) = (10, Limit::Time(Duration::from_millis(100)));
    let (mut only, mut size) = (None, None);
    let mut rest = arguments.into_iter();
    while let Some(option) = rest.next() {
        let value = rest.next().ok_or(USAGE)?;
        match option.as_str() {
            "--rounds" => rounds = value.parse()?,
            "--millis" => limit = Limit::Time(Duration::from_millis(value.parse()?)),
            "--trips" => limit = Limit::Trips(value.parse()?),
            "--only" => only = Some(value),
            "--bytes" => size = Some(value.parse()?),
            _ => return Err(USAGE.into()),
        }
    }
    let wanted: Vec<(Way, usize)> = WAYS
        .iter()
        .filter(|way| only.as_deref().is_none_or(|only| only == way.name))
        .flat_map(|way| {
            let sizes = size.as_ref().map_or(way.sizes, std::slice::from_ref);
            sizes.iter().map(|bytes| (*way, *bytes))
        })
        .collect();
    if wanted.is_empty() {
        return Err("there is no such way".into());
    }
    let (here, there) = process::two_cores()?;
    process::pin(here)?;
    let clock = measure::cost_of_the_clock();
    for round in 0..rounds {
        // Always in this order: where a hypervisor moves cores about, only what was measured one
        // right after the other can be compared.
        for (way, bytes) in wanted.iter().copied() {
            let peer = Peer::start(way.name, bytes, there)?;
            let mut asker = (way.ask)(&peer, bytes)?;
            let measured = measure::trips(asker.as_mut(), bytes, limit, clock)?;
            print(round, way.name, bytes, &measured, asker.sleeps());
            drop(asker);
            peer.finish()?;
        }
    }
    Ok(())
}

fn print(round: usize, name: &str, bytes: usize, measured: &Measured, sleeps: Option<(u64, u64)>) {
    let Measured {
        trips,
        p50,
        p99,
        total,
    } = measured;
    let sleeps = sleeps.map_or(String::new(), |(slept, rang)| {
        format!(r#", "slept": {slept}, "rang": {rang}"#)
    });
    println!(
        r#"{{"round": {round}, "way": "{name}", "bytes": {bytes}, "trips": {trips}, "p50": {p50}, "p99": {p99}, "total": {total}{sleeps}}}"#
    );
}
