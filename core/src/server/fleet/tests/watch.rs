//! Workers that stand still, or hold on to what nobody waits for.

use super::*;

#[test]
fn a_stuck_worker_says_where_it_hangs_and_is_killed() {
    let mut scene = Scene::serving(1);
    // Each loop that has requests with it says so.
    scene.fleet.stuck(0, scene.now);
    scene.fleet.stuck(0, scene.now);
    assert_eq!(
        scene.fleet.take_actions(),
        [Action::LaneDraining(0), Action::Abort(0, 10 * SECOND)]
    );
    let (_, actions) = scene.pass_to_deadline();
    assert_eq!(actions, [Action::Kill(0)]);
    let actions = scene.exit(0, Exit::Signal(SIGKILL));
    assert_eq!(
        told(&actions),
        ["worker 1 (pid 100) was ended, as it stood still; another starts in 100 ms"]
    );
}

#[test]
fn who_is_asked_and_does_not_answer_is_stuck() {
    let mut scene = Scene::new(1);
    scene.fleet.patience.asks = true;
    scene.pass(Duration::ZERO);
    scene.boot(0);
    assert_eq!(scene.pass(Duration::ZERO), [Action::Ask(0)]);
    for _ in 0..20 {
        scene.fleet.answered(0, true);
        let (time, actions) = scene.pass_to_deadline();
        assert_eq!((time, actions), (10 * SECOND / 4, vec![Action::Ask(0)]));
    }
    // However long this machine was stopped: that counts once.
    for _ in 0..3 {
        assert_eq!(scene.pass(3600 * SECOND), [Action::Ask(0)]);
    }
    let actions = scene.pass(3600 * SECOND);
    assert_eq!(
        actions,
        [Action::LaneDraining(0), Action::Abort(0, 10 * SECOND)]
    );
    // The next one is asked anew, and not before it is ready.
    scene.exit(0, Exit::Signal(6));
    let (_, actions) = scene.pass_to_deadline();
    assert_eq!(actions, [Action::Spawn(0)]);
    scene.boot(0);
    assert_eq!(scene.pass(Duration::ZERO), [Action::Ask(0)]);
}

#[test]
fn who_looks_for_its_engine_has_the_time_that_this_takes() {
    let mut scene = Scene::new(1);
    scene.fleet.patience.asks = true;
    scene.pass(Duration::ZERO);
    scene.boot(0);
    assert_eq!(scene.pass(Duration::ZERO), [Action::Ask(0)]);
    // It has lost its engine, and waits for what is in its place: for room, and for a word.
    scene.fleet.answered(0, false);
    let mut waited = Duration::ZERO;
    while waited < 20 * SECOND {
        let (time, actions) = scene.pass_to_deadline();
        assert_eq!(actions, [Action::Ask(0)], "after {waited:?}");
        waited += time;
    }
    // Longer than that nothing can take.
    let given = loop {
        let (time, actions) = scene.pass_to_deadline();
        waited += time;
        match actions[..] {
            [Action::Ask(0)] => {}
            [Action::LaneDraining(0), Action::Abort(0, _)] => break waited,
            _ => panic!("{actions:?}"),
        }
    };
    assert!((30..40).contains(&given.as_secs()), "{given:?}");
}

#[test]
fn who_has_never_answered_is_not_asked_to() {
    let mut scene = Scene::new(1);
    scene.fleet.patience.asks = true;
    scene.pass(Duration::ZERO);
    scene.boot(0);
    for _ in 0..50 {
        let actions = scene.pass(3 * SECOND);
        assert!(matches!(actions[..], [] | [Action::Ask(0)]), "{actions:?}");
    }
}

#[test]
fn who_has_answered_while_it_started_may_stand_still_from_its_first_moment() {
    let mut scene = Scene::new(1);
    scene.fleet.patience.asks = true;
    scene.pass(Duration::ZERO);
    scene.fleet.spawned(0, 100);
    assert_eq!(done(&scene.fleet.take_actions()), [Action::Ask(0)]);
    scene.fleet.greeted(0);
    assert!(
        !scene.fleet.answered(0, false),
        "nobody is to be told of that"
    );
    scene.fleet.ready(0, scene.now);
    scene.fleet.take_actions();
    let mut waited = Duration::ZERO;
    loop {
        let (time, actions) = scene.pass_to_deadline();
        waited += time;
        if done(&actions) != [Action::Ask(0)] {
            break;
        }
    }
    assert_eq!(waited, 10 * SECOND);
    assert!(matches!(
        scene.fleet.workers[0].phase,
        Phase::Leaving(Some(_))
    ));
}

#[test]
fn without_a_grace_time_it_is_asked_once_for_its_state() {
    let mut scene = Scene::new(1);
    scene.fleet.patience.asks = true;
    scene.fleet.patience.stuck = Duration::ZERO;
    scene.pass(Duration::ZERO);
    scene.boot(0);
    assert_eq!(scene.pass(Duration::ZERO), [Action::Ask(0)]);
    scene.fleet.answered(0, true);
    assert_eq!(scene.fleet.next_deadline(), None);
}

#[test]
fn a_crowded_worker_makes_room_when_it_has_finished_what_others_wait_for() {
    let mut scene = Scene::serving(2);
    scene.fleet.crowded(0, 256, 1024, scene.now);
    let actions = scene.fleet.take_actions();
    assert_eq!(done(&actions), [Action::LaneDraining(0)]);
    assert_eq!(
        told(&actions),
        [
            "worker 1 (pid 100) goes on with 256 requests that nobody waits for, and has room for 1024: \
             it finishes the others and makes room for another worker"
        ]
    );
    // Said again, and of another one meanwhile.
    scene.fleet.crowded(0, 256, 1024, scene.now);
    scene.fleet.crowded(1, 256, 1024, scene.now);
    assert_eq!(scene.fleet.take_actions(), []);
    scene.fleet.settled(0, scene.now);
    scene.fleet.settled(0, scene.now);
    scene.fleet.settled(1, scene.now);
    assert_eq!(scene.fleet.take_actions(), [Action::TellDrain(0)]);
    let actions = scene.exit(0, Exit::Code(0));
    assert_eq!(
        told(&actions),
        ["worker 1 (pid 100) has made room; another starts in 100 ms"]
    );
}

#[test]
fn a_crowded_worker_that_never_settles_has_its_time() {
    let mut scene = Scene::serving(1);
    scene.fleet.crowded(0, 256, 1024, scene.now);
    scene.fleet.take_actions();
    let (time, actions) = scene.pass_to_deadline();
    assert_eq!((time, actions), (30 * SECOND, vec![Action::TellDrain(0)]));
    let (time, actions) = scene.pass_to_deadline();
    assert_eq!((time, actions), (30 * SECOND, vec![Action::Kill(0)]));
}

#[test]
fn a_crowded_worker_is_told_to_leave_with_the_others() {
    let mut scene = Scene::serving(2);
    scene.fleet.crowded(0, 256, 1024, scene.now);
    scene.fleet.take_actions();
    scene.stop();
    scene.fleet.engine_idle(scene.now);
    let told: Vec<_> = done(&scene.fleet.take_actions());
    assert!(told.contains(&Action::TellDrain(0)) && told.contains(&Action::TellDrain(1)));
    scene.exit(0, Exit::Code(0));
    let actions = scene.exit(1, Exit::Code(0));
    assert!(actions.contains(&Action::Finish(Outcome::Stopped)));
}
