//! Consumer processes die, stand still or leave a child behind at every point where it matters, under
//! load. Whatever they had not begun is answered rightly by others; whatever they had begun ends in
//! exactly one way; and nothing of them is left.
//!
//! The points stand in the consumer's source as `crash::point("...")`; two more are the
//! application's. `TOOLB_CRASHES` multiplies how often each is tried.
#![forbid(unsafe_code)]

mod crash;
mod support;

use std::collections::HashMap;
use std::env;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crash::clients::{Asked, Outcome, client};
use crash::fleet::{Fleet, How, Plan};
use crash::{application, state_and_group};
use support::{Random, Server};
use toolb_core::config::{EngineConfig, Timeouts};

const CLIENTS: usize = 16;
/// Each point, and the latest time of coming by that is tried.
const POINTS: [(&str, u64); 13] = [
    // Before the engine lets work in.
    ("attached", 1),
    // About to sleep.
    ("armed", 30),
    // A batch was read and its space given back; none of it was started.
    ("taken", 60),
    // The engine may see the start; the application has not seen the request.
    ("started", 80),
    // It has seen it, and has written nothing.
    ("running", 80),
    // Records stand in the ring, and the tail does not say so yet.
    ("written", 120),
    // It does, and nobody was woken.
    ("published", 120),
    // After a head and a part of the body.
    ("streaming", 30),
    // After END, before DONE.
    ("ended", 6),
    // More of a request's body was granted, and nobody was woken.
    ("granted", 4),
    // Holds exchanges, some of which were called back; has just seen the first of these.
    ("recalled", 6),
    // Was told to leave while it holds exchanges.
    ("draining", 1),
    // An exchange was cancelled by its client.
    ("cancelled", 3),
];

fn plans() -> Vec<Plan> {
    let often = env::var("TOOLB_CRASHES").map_or(1, |often| often.parse().unwrap());
    let mut random = Random(7);
    let mut plans = Vec::new();
    for (point, most) in POINTS {
        for (how, times) in [
            (How::Kill, 13),
            (How::Fork, 2),
            (How::Stop, 2),
            (How::Pause, 1),
        ] {
            plans.extend((0..often * times).map(|_| Plan {
                point,
                count: 1 + random.below(most),
                how,
            }));
        }
    }
    for at in (1..plans.len()).rev() {
        plans.swap(at, random.below(at as u64 + 1) as usize);
    }
    plans
}

#[test]
fn consumers_fall_at_every_point() {
    let server = Server::start(EngineConfig {
        loops: Some(2),
        queue_timeout: Duration::from_secs(120),
        timeouts: Timeouts {
            request_header: Duration::from_secs(120),
            request_body: Duration::from_secs(120),
            request_body_min_rate: 0,
            response: Duration::from_secs(120),
            keep_alive: Duration::from_secs(120),
            ..Timeouts::default()
        },
        ..EngineConfig::default()
    });
    let diary = Path::new(env!("CARGO_TARGET_TMPDIR")).join("crash-diary");
    fs::write(&diary, "").unwrap();
    let plans = plans();
    let planned = plans.len();
    let mut fleet = Fleet::new(&server.engine, &diary, plans);
    // With the first lane comes a thread that all of them share, and that stays.
    let first = server.engine.new_lane(1, 1, 1, 0).unwrap();
    server.engine.lane_down(&first);
    drop(first);
    while server.engine.next_control_event().is_none() {
        server.engine.control_events().wait(None).unwrap();
        server.engine.control_events().drain();
    }
    let before = Holdings::of_this_process();
    let shared_before = names_in_shared_memory();

    let began = Instant::now();
    let stop = AtomicBool::new(false);
    let asked: Vec<Asked> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (address, stop) = (&server.address, &stop);
                scope.spawn(move || client(number, address, stop))
            })
            .collect();
        // Clients would go on for ever if this panicked before they were told to stop.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| fleet.carry_out()));
        stop.store(true, Ordering::Relaxed);
        let asked = clients.into_iter().flat_map(|one| one.join().unwrap());
        let asked = asked.collect();
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        asked
    });
    fleet.end();
    let took = began.elapsed();

    let tally = judge(&asked, &Diary::read(&diary), &fleet.deaths);
    println!(
        "{planned} consumers fell in {:.1} s: {tally:?}",
        took.as_secs_f64()
    );
    for (point, _) in POINTS {
        for how in [How::Kill, How::Fork, How::Stop, How::Pause] {
            assert!(fleet.fallen.contains_key(&(point, how)), "{point} {how:?}");
        }
    }
    // The test has met what it is about.
    assert!(tally.right > 5 * planned, "{tally:?}");
    assert!(tally.bad_gateway >= planned / 20, "{tally:?}");
    assert!(tally.cut >= planned / 40, "{tally:?}");
    let stats = server.engine.stats();
    assert!(stats.recalled > 0 && stats.redispatched > 0, "{stats:?}");

    // Nothing is left of them.
    let patience = Instant::now() + Duration::from_secs(60);
    loop {
        let now = Holdings::of_this_process();
        if now.within(&before) {
            break;
        }
        assert!(Instant::now() < patience, "{before:?} became {now:?}");
        std::thread::yield_now();
    }
    for entry in fs::read_dir("/proc").unwrap() {
        let name = entry.unwrap().file_name();
        let group = name.to_str().and_then(state_and_group);
        // Whoever was killed along with its group is reaped by somebody else.
        if let Some((state, group)) = group.filter(|(state, _)| !"ZX".contains(*state)) {
            assert!(!fleet.pids.contains(&group), "{name:?} ({state}) is left");
        }
    }
    let shared: Vec<_> = names_in_shared_memory()
        .into_iter()
        .filter(|name| name.contains("toolb") && !shared_before.contains(name))
        .collect();
    assert!(shared.is_empty(), "{shared:?}");
}

/// No test by itself: the process that falls.
#[test]
fn consumer_process() {
    if env::var_os(application::DIARY).is_some() {
        application::run(&env::var("TOOLB_BUS").unwrap());
    }
}

#[derive(Debug, Default)]
struct Tally {
    right: usize,
    bad_gateway: usize,
    cut: usize,
    left: usize,
    /// Not begun and answered with 502 all the same: three consumers died with it.
    unlucky: usize,
}

/// Holds the outcome of every request against what consumers have seen of it.
fn judge(asked: &[Asked], diary: &Diary, deaths: &[Instant]) -> Tally {
    let mut tally = Tally::default();
    for one in asked {
        let Asked { name, outcome, .. } = one;
        let seen = diary.0.get(name).copied().unwrap_or_default();
        assert!(seen.runs <= 1, "{name} ran {} times", seen.runs);
        let begun = seen.starts > seen.called_back;
        match outcome {
            Outcome::Right => {
                assert_eq!(seen.runs, 1, "{name} was answered by nobody");
                tally.right += 1;
            }
            Outcome::BadGateway if begun => tally.bad_gateway += 1,
            // A request is sent three times at most.
            Outcome::BadGateway => {
                let during = deaths
                    .iter()
                    .filter(|at| (one.began..one.ended).contains(at));
                assert!(during.count() >= 3, "{name} had not begun: {seen:?}");
                tally.unlucky += 1;
            }
            Outcome::Cut => {
                assert!(begun, "{name} had not begun and was cut: {seen:?}");
                tally.cut += 1;
            }
            Outcome::Left => tally.left += 1,
            Outcome::Wrong(what) => panic!("{name}: {what}; {seen:?}"),
        }
    }
    tally
}

/// What consumers have written of the requests they met, by name.
struct Diary(HashMap<String, Seen>);

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// Times it was about to be started.
    starts: usize,
    called_back: usize,
    runs: usize,
}

impl Diary {
    fn read(path: &Path) -> Self {
        let mut seen: HashMap<String, Seen> = HashMap::new();
        for line in fs::read_to_string(path).unwrap().lines() {
            let mut words = line.splitn(3, ' ').skip(1);
            let one = seen.entry(words.next().unwrap().to_owned()).or_default();
            match words.next().unwrap() {
                "about to start" => one.starts += 1,
                "called back" => one.called_back += 1,
                "runs" => one.runs += 1,
                other => panic!("{other}"),
            }
        }
        Self(seen)
    }
}

/// What a process holds that a consumer could have left behind.
#[derive(Debug)]
struct Holdings {
    descriptors: usize,
    /// Mappings of memory that is shared with consumers.
    shared: usize,
    threads: usize,
    children: usize,
}

impl Holdings {
    fn of_this_process() -> Self {
        let count = |folder| fs::read_dir(folder).unwrap().count();
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let children = |task: fs::DirEntry| {
            let children = fs::read_to_string(task.path().join("children"));
            children.map_or(0, |text| text.split_whitespace().count())
        };
        let tasks = fs::read_dir("/proc/self/task").unwrap();
        Self {
            descriptors: count("/proc/self/fd"),
            shared: maps.matches("memfd:toolb").count(),
            threads: count("/proc/self/task"),
            children: tasks.flatten().map(children).sum(),
        }
    }

    /// No more of anything than there was before.
    fn within(&self, before: &Self) -> bool {
        self.descriptors <= before.descriptors
            && self.shared <= before.shared
            && self.threads <= before.threads
            && self.children <= before.children
    }
}

fn names_in_shared_memory() -> Vec<String> {
    let entries = fs::read_dir("/dev/shm").into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}
