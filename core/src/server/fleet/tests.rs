use super::*;
use crate::sys::signal::{SIGINT, SIGKILL, SIGTERM};

const SECOND: Duration = Duration::from_secs(1);

/// A fleet, and the time.
struct Scene {
    fleet: Fleet,
    now: Instant,
}

impl Scene {
    fn new(workers: usize) -> Self {
        let now = Instant::now();
        let patience = Patience {
            hello: 60 * SECOND,
            start: 600 * SECOND,
            slow: 30 * SECOND,
            exit: 5 * SECOND,
            graceful: 30 * SECOND,
            stuck: 10 * SECOND,
            asks: false,
        };
        let hint = Some("is toolb installed?".to_owned());
        let fleet = Fleet::new(workers, patience, hint, now);
        Self { fleet, now }
    }

    /// All workers ready.
    fn serving(workers: usize) -> Self {
        let mut scene = Self::new(workers);
        scene.pass(Duration::ZERO);
        for index in 0..workers {
            scene.boot(index);
        }
        scene
    }

    fn boot(&mut self, index: usize) -> Vec<Action> {
        self.fleet.spawned(index, 100 + index as u32);
        self.fleet.greeted(index);
        self.fleet.ready(index, self.now);
        self.fleet.take_actions()
    }

    fn pass(&mut self, time: Duration) -> Vec<Action> {
        self.now += time;
        self.fleet.tick(self.now);
        self.fleet.take_actions()
    }

    /// Until the next deadline.
    fn pass_to_deadline(&mut self) -> (Duration, Vec<Action>) {
        let deadline = self.fleet.next_deadline().unwrap();
        let time = deadline.saturating_duration_since(self.now);
        (time, self.pass(time))
    }

    fn exit(&mut self, index: usize, exit: Exit) -> Vec<Action> {
        self.fleet.exited(index, exit, self.now);
        self.fleet.take_actions()
    }

    fn stop(&mut self) -> Vec<Action> {
        self.fleet.stop(SIGTERM, "SIGTERM", self.now);
        self.fleet.take_actions()
    }
}

/// What was told, as a person reads it.
fn told(actions: &[Action]) -> Vec<String> {
    let text = |action: &Action| match action {
        Action::Tell(event) => Some(event.to_string()),
        _ => None,
    };
    actions.iter().filter_map(text).collect()
}

/// What is to be done.
fn done(actions: &[Action]) -> Vec<Action> {
    let is_done = |action: &&Action| !matches!(action, Action::Tell(_));
    actions.iter().filter(is_done).cloned().collect()
}

#[test]
fn all_start_at_once_and_serve_when_the_last_is_ready() {
    let mut scene = Scene::new(2);
    let actions = scene.pass(Duration::ZERO);
    assert_eq!(actions, [Action::Spawn(0), Action::Spawn(1)]);
    let actions = scene.boot(1);
    assert_eq!(done(&actions), [Action::LaneUp(1)]);
    let actions = scene.boot(0);
    assert_eq!(done(&actions), [Action::LaneUp(0), Action::Serving]);
}

#[test]
fn nothing_is_due_while_all_serve() {
    let scene = Scene::serving(3);
    assert_eq!(scene.fleet.next_deadline(), None);
}

#[test]
fn ready_counts_once_and_only_after_the_hello() {
    let mut scene = Scene::new(1);
    scene.pass(Duration::ZERO);
    scene.fleet.spawned(0, 1);
    scene.fleet.take_actions();
    scene.fleet.ready(0, scene.now);
    assert_eq!(scene.fleet.take_actions(), []);
    scene.fleet.greeted(0);
    scene.fleet.ready(0, scene.now);
    assert!(!scene.fleet.take_actions().is_empty());
    scene.fleet.ready(0, scene.now);
    assert_eq!(scene.fleet.take_actions(), []);
}

#[test]
fn a_worker_that_takes_leave_gets_no_more_requests_and_is_replaced() {
    let mut scene = Scene::serving(2);
    scene.fleet.takes_leave(0, scene.now);
    assert_eq!(scene.fleet.take_actions(), [Action::LaneDraining(0)]);
    // It has the time of a drain; then it is told to hurry.
    let (time, actions) = scene.pass_to_deadline();
    assert_eq!((time, actions), (30 * SECOND, vec![Action::TellDrain(0)]));
    scene.fleet.takes_leave(0, scene.now);
    assert_eq!(scene.fleet.take_actions(), []);
    let actions = scene.exit(0, Exit::Code(0));
    assert_eq!(done(&actions), [Action::LaneDown(0)]);
    assert_eq!(scene.pass_to_deadline().1, [Action::Spawn(0)]);
}

#[test]
fn an_application_that_does_not_start_ends_the_server() {
    let mut scene = Scene::new(2);
    scene.pass(Duration::ZERO);
    scene.boot(1);
    scene.fleet.spawned(0, 7);
    scene.fleet.greeted(0);
    scene.fleet.take_actions();
    let reason = "no module named \"nope\"".to_owned();
    scene.fleet.failed(0, reason, true, scene.now);
    let actions = scene.fleet.take_actions();
    assert_eq!(told(&actions), ["cannot start: no module named \"nope\""]);
    assert_eq!(done(&actions), [Action::DrainEngine]);
    // The one that did start is asked to finish, then everything ends, without another word.
    scene.fleet.engine_idle();
    let actions = scene.fleet.take_actions();
    assert_eq!(actions, [Action::LaneDraining(1), Action::TellDrain(1)]);
    let actions = scene.exit(0, Exit::Code(3));
    assert_eq!(actions, [Action::LaneDown(0)]);
    let actions = scene.exit(1, Exit::Code(0));
    assert_eq!(
        actions,
        [Action::LaneDown(1), Action::Finish(Outcome::StartFailed)]
    );
}

#[test]
fn exits_before_ready_end_the_server_with_a_reason() {
    let cases = [
        (
            Exit::Code(3),
            "cannot start: worker 1 (pid 7) could not start the application; its message stands above",
        ),
        (
            Exit::Code(1),
            "cannot start: worker 1 (pid 7) exited with code 1 before it was ready; is toolb installed?",
        ),
        (
            Exit::Signal(SIGKILL),
            "cannot start: worker 1 (pid 7) was ended by SIGKILL before it was ready",
        ),
    ];
    for (exit, text) in cases {
        let mut scene = Scene::new(1);
        scene.pass(Duration::ZERO);
        scene.fleet.spawned(0, 7);
        scene.fleet.take_actions();
        let actions = scene.exit(0, exit);
        assert_eq!(told(&actions), [text]);
        let finish = Action::Finish(Outcome::StartFailed);
        assert_eq!(
            done(&actions),
            [Action::LaneDown(0), Action::DrainEngine, finish]
        );
    }
}

#[test]
fn a_program_that_cannot_be_run_ends_the_server() {
    let mut scene = Scene::new(1);
    scene.pass(Duration::ZERO);
    let why = "cannot be started: python9: not found".to_owned();
    scene.fleet.spawn_failed(0, why, scene.now);
    let actions = scene.fleet.take_actions();
    assert_eq!(
        told(&actions),
        ["cannot start: worker 1 cannot be started: python9: not found"]
    );
    assert!(actions.contains(&Action::Finish(Outcome::StartFailed)));
}

#[test]
fn a_passing_failure_is_tried_again_even_at_first() {
    let mut scene = Scene::new(1);
    scene.pass(Duration::ZERO);
    scene.fleet.spawned(0, 7);
    scene.fleet.greeted(0);
    scene.fleet.take_actions();
    let reason = "the database is not there yet".to_owned();
    scene.fleet.failed(0, reason, false, scene.now);
    let actions = scene.exit(0, Exit::Code(3));
    let text = "worker 1 (pid 7) could not start the application: the database is not there yet; \
                another starts in 100 ms";
    assert_eq!(told(&actions), [text]);
    let (time, actions) = scene.pass_to_deadline();
    assert_eq!(time, Duration::from_millis(100));
    assert_eq!(actions, [Action::Spawn(0)]);
}

#[test]
fn after_the_start_failures_are_tried_again_with_back_off() {
    let mut scene = Scene::serving(1);
    let mut delays = Vec::new();
    for _ in 0..8 {
        let actions = scene.exit(0, Exit::Code(3));
        assert_eq!(done(&actions), [Action::LaneDown(0)]);
        let (delay, actions) = scene.pass_to_deadline();
        assert_eq!(actions, [Action::Spawn(0)]);
        scene.fleet.spawned(0, 9);
        scene.fleet.take_actions();
        delays.push(delay.as_millis());
    }
    assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    scene.boot(0);
    scene.pass(11 * SECOND);
    scene.exit(0, Exit::Signal(SIGKILL));
    let (delay, _) = scene.pass_to_deadline();
    assert_eq!(delay.as_millis(), 100);
}

#[test]
fn a_worker_that_hangs_up_has_a_moment_to_exit() {
    let mut scene = Scene::serving(1);
    scene.fleet.hung_up(0, scene.now);
    scene.fleet.hung_up(0, scene.now);
    assert_eq!(scene.fleet.take_actions(), [Action::LaneDraining(0)]);
    let (time, actions) = scene.pass_to_deadline();
    assert_eq!(time, 5 * SECOND);
    assert_eq!(actions, [Action::Kill(0)]);
    let actions = scene.exit(0, Exit::Signal(SIGKILL));
    assert_eq!(
        told(&actions),
        ["worker 1 (pid 100) was ended by SIGKILL; another starts in 100 ms"]
    );
}

#[test]
fn a_worker_that_breaks_the_rules_is_killed() {
    let mut scene = Scene::serving(1);
    scene.fleet.poisoned(0, "tail beyond the ring".to_owned());
    assert_eq!(
        scene.fleet.take_actions(),
        [
            Action::TellError(0, "tail beyond the ring".to_owned()),
            Action::Kill(0)
        ]
    );
    let actions = scene.exit(0, Exit::Signal(SIGKILL));
    assert_eq!(
        told(&actions),
        [
            "worker 1 (pid 100) broke the rules of the bus: tail beyond the ring; another starts in 100 ms"
        ]
    );
}

#[test]
fn a_stuck_worker_says_where_it_hangs_and_is_killed() {
    let mut scene = Scene::serving(1);
    // Each loop that has requests with it says so.
    scene.fleet.stuck(0, scene.now);
    scene.fleet.stuck(0, scene.now);
    let actions = scene.fleet.take_actions();
    assert_eq!(
        told(&actions),
        [
            "worker 1 (pid 100) has stood still for 10 s with work to do and is ended; where it hangs \
             follows here, on standard error"
        ]
    );
    assert_eq!(done(&actions), [Action::LaneDraining(0), Action::Abort(0)]);
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
    assert_eq!(done(&actions), [Action::LaneDraining(0), Action::Abort(0)]);
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
        match done(&actions)[..] {
            [Action::Ask(0)] => {}
            [Action::LaneDraining(0), Action::Abort(0)] => break waited,
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
    scene.fleet.engine_idle();
    let told: Vec<_> = done(&scene.fleet.take_actions());
    assert!(told.contains(&Action::TellDrain(0)) && told.contains(&Action::TellDrain(1)));
    scene.exit(0, Exit::Code(0));
    let actions = scene.exit(1, Exit::Code(0));
    assert!(actions.contains(&Action::Finish(Outcome::Stopped)));
}

#[test]
fn slow_starts_are_remarked_upon_once_and_end_at_their_limit() {
    let mut scene = Scene::new(1);
    scene.pass(Duration::ZERO);
    scene.fleet.spawned(0, 7);
    scene.fleet.take_actions();
    let (time, actions) = scene.pass_to_deadline();
    assert_eq!(time, 30 * SECOND);
    assert_eq!(told(&actions).len(), 1);
    let (time, actions) = scene.pass_to_deadline();
    assert_eq!(time, 30 * SECOND);
    assert_eq!(actions, [Action::Kill(0)]);
    let actions = scene.exit(0, Exit::Signal(SIGKILL));
    assert_eq!(
        told(&actions),
        ["cannot start: worker 1 (pid 7) did not attach to the bus within 60 s"]
    );
}

#[test]
fn applications_have_longer_to_start_than_workers_to_attach() {
    let mut scene = Scene::new(1);
    scene.pass(Duration::ZERO);
    scene.fleet.spawned(0, 7);
    scene.fleet.greeted(0);
    scene.fleet.take_actions();
    scene.pass_to_deadline();
    let (time, actions) = scene.pass_to_deadline();
    assert_eq!(time, 570 * SECOND);
    assert_eq!(actions, [Action::Kill(0)]);
}

#[test]
fn a_stop_drains_the_engine_first_and_the_workers_then() {
    let mut scene = Scene::serving(2);
    assert_eq!(done(&scene.stop()), [Action::DrainEngine]);
    scene.fleet.engine_idle();
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
    assert_eq!(
        done(&actions),
        [Action::DrainEngine, Action::Finish(Outcome::Stopped)]
    );
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
    scene.fleet.ask_to_finish();
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
