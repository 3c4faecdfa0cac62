//! Who waits while room appears, and who leaves meanwhile.

use super::*;

/// The second looks of `admit` and `pump`, against room that appears at the same time.
fn lone_waiter(pumps: bool) {
    let world = Arc::new(World::new(1, narrow(1, 1, 1), 1, None));
    assert!(world.admit(0).is_none());
    let newcomer = thread::spawn({
        let world = Arc::clone(&world);
        move || match world.pool.admit(Work::Request, 0, 1) {
            Admission::Queued(_) if pumps => world.pump(),
            Admission::Queued(_) => {}
            Admission::Granted(reservation) => world.hold(reservation, 1),
            refused => panic!("{refused:?}"),
        }
    });
    world.end();
    newcomer.join().unwrap();
    world.assert_nobody_stranded();
}

#[test]
fn a_lone_waiter_is_not_stranded() {
    check(|| lone_waiter(false));
}

#[test]
fn a_lone_waiter_that_pumps_is_not_stranded() {
    check(|| lone_waiter(true));
}

/// Room for two appears while two arrive, one of them leaves, and cancelled tickets fill the line.
#[test]
fn a_cancelled_ticket_strands_nobody() {
    check(|| {
        let world = Arc::new(World::new(2, narrow(1, 1, 1), 2, None));
        assert!(world.admit(0).is_none() && world.admit(1).is_none());
        for exchange in 2..5 {
            let ticket = world.admit(exchange).unwrap();
            world.cancel(&ticket);
        }
        let fickle = thread::spawn({
            let world = Arc::clone(&world);
            move || {
                if let Some(ticket) = world.admit(10) {
                    world.cancel(&ticket);
                }
            }
        });
        let patient = thread::spawn({
            let world = Arc::clone(&world);
            move || drop(world.admit(11))
        });
        let other = thread::spawn({
            let world = Arc::clone(&world);
            move || world.end()
        });
        world.end();
        for thread in [fickle, patient, other] {
            thread.join().unwrap();
        }
        world.wind_up(2);
    });
}
