//! The end.

use super::*;
use crate::server::ECHO;

#[test]
fn a_stop_drains_the_engine_first_and_the_workers_then() {
    let mut scene = Scene::serving(2);
    assert_eq!(done(&scene.stop()), [Action::DrainEngine]);
    scene.fleet.engine_idle(scene.now);
    assert_eq!(
        scene.fleet.take_actions(),
        [
            Action::LaneDraining(0),
            Action::TellDrain(0),
            Action::LaneDraining(1),
            Action::TellDrain(1)
        ]
    );
    assert_eq!(scene.exit(1, Exit::Code(0)), [Action::LaneDown(1)]);
    assert_eq!(
        scene.exit(0, Exit::Code(0)),
        [Action::LaneDown(0), Action::Finish(Outcome::Stopped)]
    );
}

#[test]
fn a_stop_ends_in_time_even_if_a_client_never_leaves() {
    let mut scene = Scene::serving(1);
    scene.stop();
    let (time, actions) = scene.pass_to_deadline();
    assert_eq!(time, 25 * SECOND);
    assert_eq!(
        actions,
        [
            Action::Hurry(30 * SECOND),
            Action::LaneDraining(0),
            Action::TellDrain(0)
        ]
    );
    let (time, actions) = scene.pass_to_deadline();
    assert_eq!(time, 5 * SECOND);
    assert_eq!(
        told(&actions),
        ["1 worker did not finish within 30 s and is killed"]
    );
    // Clients hear of it before their worker is gone.
    assert_eq!(done(&actions), [Action::CutEngine, Action::Kill(0)]);
    assert_eq!(
        scene.exit(0, Exit::Signal(SIGKILL)),
        [Action::LaneDown(0), Action::Finish(Outcome::Cut)]
    );
    assert_eq!(scene.fleet.next_deadline(), None);
}

#[test]
fn those_who_have_to_hurry_have_half_of_a_short_time() {
    for (grace, told_at) in [(1, 500), (4, 2000), (8, 4000), (10, 5000), (60, 55_000)] {
        let mut scene = Scene::serving(1);
        scene.fleet.patience.graceful = grace * SECOND;
        assert_eq!(scene.fleet.time_left(scene.now), None);
        scene.stop();
        let (time, actions) = scene.pass_to_deadline();
        assert_eq!(time, Duration::from_millis(told_at));
        assert!(actions.contains(&Action::TellDrain(0)));
        assert_eq!(
            scene.fleet.time_left(scene.now),
            Some(grace * SECOND - time)
        );
    }
}

#[test]
fn a_second_signal_waits_for_nothing() {
    let mut scene = Scene::serving(2);
    scene.stop();
    scene.pass(SECOND);
    scene.fleet.stop(SIGINT, "SIGINT", scene.now);
    let actions = scene.fleet.take_actions();
    assert_eq!(told(&actions), ["second signal: killing 2 workers"]);
    assert_eq!(
        done(&actions),
        [Action::CutEngine, Action::Kill(0), Action::Kill(1)]
    );
    scene.exit(0, Exit::Signal(SIGKILL));
    let actions = scene.exit(1, Exit::Signal(SIGKILL));
    assert!(actions.contains(&Action::Finish(Outcome::Forced(SIGINT))));
}

#[test]
fn a_third_signal_does_not_wait_for_the_killed() {
    let mut scene = Scene::serving(1);
    scene.stop();
    scene.pass(SECOND);
    scene.stop();
    let actions = scene.stop();
    assert_eq!(actions, [Action::Finish(Outcome::Forced(SIGTERM))]);
}

#[test]
fn a_signal_that_comes_twice_at_once_is_one() {
    let mut scene = Scene::serving(1);
    scene.stop();
    scene.pass(SECOND / 20);
    assert_eq!(scene.stop(), []);
    scene.pass(SECOND / 20);
    assert_eq!(done(&scene.stop()), [Action::CutEngine, Action::Kill(0)]);
}

#[test]
fn only_the_first_offence_counts() {
    let mut scene = Scene::serving(1);
    scene.fleet.refused(0, "first".to_owned(), scene.now);
    scene.fleet.take_actions();
    scene.fleet.refused(0, "second".to_owned(), scene.now);
    scene.fleet.complained(0, "third".to_owned(), scene.now);
    assert_eq!(scene.fleet.take_actions(), []);
    let actions = scene.exit(0, Exit::Code(1));
    let text = "worker 1 (pid 100) was refused: first; another starts in 100 ms";
    assert_eq!(told(&actions), [text]);
}

#[test]
fn a_stop_waits_for_no_worker_that_has_not_started() {
    let mut scene = Scene::new(2);
    scene.pass(Duration::ZERO);
    scene.fleet.spawned(0, 7);
    scene.fleet.spawned(1, 8);
    scene.fleet.take_actions();
    let actions = scene.stop();
    let both = [Action::Terminate(0), Action::Terminate(1)];
    assert_eq!(done(&actions)[1..], both);
    scene.exit(0, Exit::Signal(SIGTERM));
    let (time, actions) = scene.pass_to_deadline();
    assert_eq!(time, 5 * SECOND);
    assert_eq!(actions, [Action::Kill(1)]);
    let actions = scene.exit(1, Exit::Signal(SIGKILL));
    assert_eq!(done(&actions)[1], Action::Finish(Outcome::Stopped));
    assert_eq!(told(&actions), Vec::<String>::new());
}

#[test]
fn a_worker_that_waits_for_its_turn_is_not_started_after_a_stop() {
    let mut scene = Scene::serving(1);
    scene.exit(0, Exit::Code(1));
    let actions = scene.stop();
    assert_eq!(done(&actions), [Action::DrainEngine]);
    scene.fleet.engine_idle(scene.now);
    let actions = scene.fleet.take_actions();
    assert_eq!(actions, [Action::Finish(Outcome::Stopped)]);
}

#[test]
fn a_stop_leaves_requests_that_wait_to_those_who_replace_the_dead() {
    let mut scene = Scene::serving(2);
    scene.exit(0, Exit::Code(1));
    scene.exit(1, Exit::Code(1));
    assert_eq!(done(&scene.stop()), [Action::DrainEngine]);
    // The engine is not idle: somebody waits.
    let (_, actions) = scene.pass_to_deadline();
    assert_eq!(actions, [Action::Spawn(0), Action::Spawn(1)]);
    assert_eq!(done(&scene.boot(0)), [Action::LaneUp(0)]);
    scene.fleet.engine_idle(scene.now);
    assert_eq!(
        scene.fleet.take_actions(),
        [
            Action::LaneDraining(0),
            Action::TellDrain(0),
            Action::Terminate(1)
        ]
    );
    scene.exit(0, Exit::Code(0));
    let actions = scene.exit(1, Exit::Signal(SIGTERM));
    assert_eq!(done(&actions)[1], Action::Finish(Outcome::Stopped));
}

#[test]
fn a_stop_with_somebody_who_serves_waits_for_nobody_else() {
    let mut scene = Scene::serving(2);
    scene.exit(0, Exit::Code(1));
    scene.stop();
    let (time, actions) = scene.pass_to_deadline();
    assert_eq!(time, 25 * SECOND);
    assert!(!actions.contains(&Action::Spawn(0)));
}

#[test]
fn a_replacement_that_takes_too_long_is_not_waited_for() {
    let mut scene = Scene::serving(1);
    scene.exit(0, Exit::Code(1));
    scene.stop();
    let (_, actions) = scene.pass_to_deadline();
    assert_eq!(actions, [Action::Spawn(0)]);
    scene.fleet.spawned(0, 7);
    scene.fleet.take_actions();
    let (_, actions) = scene.pass_to_deadline();
    assert_eq!(actions, [Action::Hurry(30 * SECOND), Action::Terminate(0)]);
    let actions = scene.exit(0, Exit::Signal(SIGTERM));
    assert_eq!(done(&actions)[1], Action::Finish(Outcome::Stopped));
    assert_eq!(told(&actions), Vec::<String>::new());
}

#[test]
fn a_worker_lost_while_stopping_is_told_of_and_not_replaced() {
    let mut scene = Scene::serving(2);
    scene.stop();
    let actions = scene.exit(0, Exit::Code(1));
    assert_eq!(told(&actions), ["worker 1 (pid 100) exited with code 1"]);
    assert_eq!(done(&actions), [Action::LaneDown(0)]);
}

#[test]
fn workers_of_an_engine_elsewhere_are_asked_and_then_told_to_hurry() {
    let mut scene = Scene::serving(2);
    scene.stop();
    scene.fleet.ask_to_finish(scene.now);
    let actions = scene.fleet.take_actions();
    assert_eq!(actions, [Action::TellDrain(0), Action::TellDrain(1)]);
    // One has finished: that is as it should be.
    assert_eq!(scene.exit(1, Exit::Code(0)), [Action::LaneDown(1)]);
    let (time, actions) = scene.pass_to_deadline();
    assert_eq!(time, 25 * SECOND);
    assert_eq!(actions, [Action::Hurry(30 * SECOND), Action::TellDrain(0)]);
    assert_eq!(
        scene.exit(0, Exit::Code(0)),
        [Action::LaneDown(0), Action::Finish(Outcome::Stopped)]
    );
}

#[test]
fn who_gives_no_time_has_not_asked_for_an_end_without_loss() {
    let mut scene = Scene::serving(1);
    scene.fleet.patience.graceful = Duration::ZERO;
    scene.stop();
    let actions = scene.pass(Duration::ZERO);
    assert!(actions.contains(&Action::Kill(0)), "{actions:?}");
    assert_eq!(
        scene.exit(0, Exit::Signal(SIGKILL)),
        [Action::LaneDown(0), Action::Finish(Outcome::Stopped)]
    );
}

#[test]
fn nobody_is_started_once_all_are_to_be_killed() {
    let mut scene = Scene::serving(1);
    scene.exit(0, Exit::Code(1));
    scene.stop();
    scene.now += ECHO;
    let actions = scene.stop();
    assert_eq!(
        actions,
        [Action::CutEngine, Action::Finish(Outcome::Forced(SIGTERM))]
    );
    assert_eq!(scene.fleet.next_deadline(), None);
}

#[test]
fn nobody_is_started_when_the_time_is_over() {
    let mut scene = Scene::serving(1);
    scene.exit(0, Exit::Code(1));
    scene.stop();
    // The process was stopped meanwhile: the replacement and the end are due at once.
    let actions = scene.pass(30 * SECOND);
    let is_start = |action: &Action| matches!(action, Action::Spawn(_));
    assert!(!actions.iter().any(is_start), "{actions:?}");
    assert!(actions.contains(&Action::Finish(Outcome::Stopped)));
}

#[test]
fn whoever_is_to_take_requests_that_wait_is_replaced_too() {
    let mut scene = Scene::serving(1);
    scene.fleet.takes_leave(0, scene.now);
    scene.fleet.take_actions();
    scene.stop();
    // It has finished what it had, and was not to get more.
    let actions = scene.exit(0, Exit::Code(0));
    assert_eq!(done(&actions), [Action::LaneDown(0)]);
    let (_, actions) = scene.pass_to_deadline();
    assert_eq!(actions, [Action::Spawn(0)]);
    scene.fleet.spawned(0, 7);
    let actions = scene.exit(0, Exit::Code(1));
    assert_eq!(done(&actions), [Action::LaneDown(0)]);
    let (_, actions) = scene.pass_to_deadline();
    assert_eq!(actions, [Action::Spawn(0)]);
    // Once one serves, it is as with any that did from the start.
    scene.boot(0);
    let actions = scene.exit(0, Exit::Code(1));
    assert_eq!(done(&actions)[1], Action::Finish(Outcome::Stopped));
}
