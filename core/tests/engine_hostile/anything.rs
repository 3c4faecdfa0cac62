//! Consumers that say whatever they like.

use super::*;

/// How many consumers say whatever they like.
const SEEDS: u64 = 300;

/// Writes records of all sorts about exchanges it has, had or never had, until it is given up or has
/// said enough.
fn babble(engine: &Engine, peer: &mut Peer, seed: u64, mut held: Vec<RecordHeader>) {
    let mut random = Random(seed);
    let kinds = [
        Kind::ResponseHead,
        Kind::ResponseHead,
        Kind::ResponseHead,
        Kind::ResponseBody,
        Kind::ResponseBody,
        Kind::ResponseBody,
        Kind::ResponseFile,
        Kind::ResponseFile,
        Kind::ResponseAbort,
        Kind::Cancelled,
        Kind::ResponseTrailers,
        Kind::Pong,
    ];
    for _ in 0..random.below(60) {
        if held.is_empty() {
            break;
        }
        let which = random.below(held.len() as u64) as usize;
        let mut it = held[which];
        match random.below(60) {
            0 => it.generation = it.generation.wrapping_add(random.below(3) as u32),
            1 => it.slot = random.below(16) as u16,
            2..9 => {
                peer.start(it);
            }
            9 => peer.lane.grant_request(it.slot, random.below(u64::MAX)),
            _ => {}
        }
        let kind = kinds[random.below(kinds.len() as u64) as usize];
        let flags = [0, 0, 0, END, END | DONE, END | DONE, DONE][random.below(7) as usize];
        let body = &[b'y'; 3000][..random.below(3000) as usize];
        it.aux = random.below(2) as u16;
        let payload = match kind {
            Kind::ResponseHead => {
                let length = [-1, body.len() as i64, random.below(3000) as i64];
                head(length[random.below(3) as usize], &[], body)
            }
            Kind::ResponseFile => by_file(random.below(30), random.below(3000)),
            _ => body.to_vec(),
        };
        if kind == Kind::ResponseFile && random.below(3) > 0 {
            let file = memory::create(c"test", 2900).unwrap();
            // There may be no such loop.
            let _ = engine.lane_file(
                &peer.handle,
                random.below(9) as u16 / 8,
                it.slot,
                it.generation,
                file,
            );
        }
        peer.write(it, kind as u8, flags, &payload);
        if (flags & DONE != 0 || kind == Kind::Cancelled) && random.below(9) > 0 {
            // Mostly it keeps to the rule that this is the end.
            held.swap_remove(which);
        }
        if random.below(3) == 0 {
            peer.publish();
        }
        if random.below(8) == 0 {
            std::thread::yield_now();
        }
    }
    peer.publish();
}

#[test]
fn whatever_a_consumer_says_every_client_gets_one_answer() {
    let mut poisoned = 0;
    for seed in 0..SEEDS {
        let server = Server::start(EngineConfig::default());
        let mut peer = Peer::attach(&server);
        let mut clients: Vec<_> = (0..6).map(|_| connect(&server.address)).collect();
        for client in &mut clients {
            ask(client, CLIENTS_PATH);
        }
        let held: Vec<_> = (0..6).map(|_| peer.request()).collect();
        // From now on what is not started may be called back.
        let mut beside = server.attach(ConsumerOptions::default(), support::Echo::default());
        babble(&server.engine, &mut peer, seed, held);
        server.engine.lane_down(&peer.handle);
        until(&server, |event| match event {
            ControlEvent::Released { .. } => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        for mut client in clients {
            hear(&mut client);
        }
        poisoned += server.engine.stats().poisoned;
        beside.kill(&server.engine);
    }
    assert!((1..SEEDS).contains(&poisoned), "{poisoned}");
}
