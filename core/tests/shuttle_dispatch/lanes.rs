//! Lanes that come and go.

use super::*;

/// A lane closes, is removed with all it has, and comes back, while everybody else carries on.
#[test]
fn lanes_come_and_go() {
    check(|| {
        let mut world = World::new(2, narrow(2, 2, 1), 2, None);
        world.lasting = false;
        let world = Arc::new(world);
        let workers: Vec<_> = (0..2)
            .map(|thread| {
                let world = Arc::clone(&world);
                thread::spawn(move || (0..5).for_each(|step| world.step(thread * 100 + step)))
            })
            .collect();
        let mut gone = false;
        for _ in 0..2 {
            world.pool.close_lane(0);
            if thread_rng().gen_bool(0.8) {
                world.pool.remove_lane(0);
                gone = true;
            }
            if gone {
                // Something that was just being reserved may keep the index from use for now.
                let lane = world.pool.add_lane(world.lane).unwrap();
                assert_ne!(lane, 1, "the index of a lane in use");
                gone = lane != 0;
                if gone {
                    world.pool.remove_lane(lane);
                    continue;
                }
            }
            world.pool.open_lane(0);
            world.pump();
        }
        for worker in workers {
            worker.join().unwrap();
        }
        // What vanished with the lane is given back in vain.
        world.end_all();
        world.pool.remove_lane(0);
        assert_eq!(
            world.pool.add_lane(world.lane),
            Some(0),
            "a counter of a removed lane leaked"
        );
        world.pool.open_lane(0);
        world.assert_all_room_is_back(2);
    });
}

/// What is being reserved while a lane is removed is granted elsewhere, or vanishes with the rest.
#[test]
fn a_removed_lane_holds_nothing() {
    check(|| {
        let world = Arc::new(World::new(2, narrow(2, 2, 2), 2, None));
        let workers: Vec<_> = (0..2)
            .map(|exchange| {
                let world = Arc::clone(&world);
                thread::spawn(move || drop(world.admit(exchange)))
            })
            .collect();
        world.pool.remove_lane(0);
        for worker in workers {
            worker.join().unwrap();
        }
        for held in world.books().held.values() {
            assert_eq!(
                world.pool.holds(held.reservation),
                held.reservation.lane == 1,
                "a reservation on a removed lane"
            );
        }
        assert_eq!(world.pool.in_flight(0), 0);
        world.assert_nobody_stranded();
    });
}
