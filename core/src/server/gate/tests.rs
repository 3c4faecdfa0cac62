use std::env;
use std::fs;
use std::process;

use crate::config::EngineConfig;
use crate::engine::{ControlEvent, Routes};
use crate::message::Hello;
use crate::sys::rendezvous::connect;

use super::*;

/// Comes, gets ready and goes, and the gate sees it.
fn visit(gate: &mut Gate, engine: &Engine, tell: &mut dyn FnMut(Event)) {
    let path = gate.path().unwrap().to_owned();
    let socket = connect(&path, Duration::from_secs(30)).unwrap();
    let hello = Hello {
        abi_min: 1,
        abi_max: 1,
        name: "visitor".into(),
        pool: "main".into(),
        slots: 1,
        concurrency: 1,
        window: 1,
        ..Hello::default()
    };
    for control in [Control::Hello(hello), Control::Ready] {
        socket.send(&control.encode(), &[]).unwrap();
    }
    while gate.guests() == 0 || gate.serving() == 0 {
        gate.turn(engine, Instant::now(), tell);
    }
    drop(socket);
    while gate.guests() > 0 {
        gate.turn(engine, Instant::now(), tell);
    }
    while !gate.fading.is_empty() {
        engine.control_events().wait(None).unwrap();
        engine.control_events().drain();
        while let Some(event) = engine.next_control_event() {
            if let ControlEvent::Released { lane_id, toll } = event {
                gate.released(lane_id, toll, tell);
            }
        }
    }
}

fn engine() -> Engine {
    let routes = Routes {
        pool: true,
        ..Routes::default()
    };
    let mut engine = Engine::bind(EngineConfig::default(), routes, &[]).unwrap();
    engine.start().unwrap();
    engine
}

/// A gate at a path of its own.
fn gate(name: &str) -> Gate {
    let name = format!("toolb-{name}-{}", process::id());
    Gate::open(&GateOptions::new(Some(env::temp_dir().join(name))), "").unwrap()
}

#[test]
fn those_who_come_and_go_are_counted_even_if_not_each_is_told_of() {
    let (engine, mut gate) = (engine(), gate("visits"));
    let path = gate.path().unwrap().to_owned();
    let (mut visits, mut came, mut went, mut left_out) = (0, 0, 0, [0, 0]);
    while left_out.contains(&0) {
        visit(&mut gate, &engine, &mut |event| {
            let line = event.to_string();
            let (told, others, sum) = match event {
                Event::Joined { others, .. } => (&mut came, others, &mut left_out[0]),
                Event::Left { others, .. } => (&mut went, others, &mut left_out[1]),
                event => panic!("{event}"),
            };
            *told += 1 + others;
            *sum += others;
            let says_so = line.ends_with(&format!(" ({others} more like it before)"));
            assert_eq!(says_so, others > 0, "{line}");
            assert_eq!(*told, visits + 1, "each is told of or counted");
        });
        visits += 1;
    }
    assert!(visits > MANY);
    gate.close(&engine);
    assert!(!fs::exists(path).unwrap());
}

#[test]
fn the_door_rests_on_until_it_can_be_watched() {
    let (engine, mut gate) = (engine(), gate("rest"));
    let now = Instant::now();
    gate.resting = Some(now);
    // In place of a machine without memory: what is watched already cannot be added.
    gate.turn(&engine, now, &mut |event| panic!("{event}"));
    assert_eq!(gate.next_deadline(), Some(now + REST));
    let door = gate.door.as_ref().unwrap();
    gate.epoll.delete(door.listener().unwrap()).unwrap();
    gate.turn(&engine, now + REST, &mut |event| panic!("{event}"));
    assert_eq!(gate.resting, None);
}
