mod stop;
mod watch;

use super::*;
use crate::log::Level;
use crate::sys::signal::{SIGINT, SIGKILL};

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

/// How much the first thing that was told matters.
fn level(actions: &[Action]) -> Option<Level> {
    actions.iter().find_map(|action| match action {
        Action::Tell(event) => Some(event.level()),
        _ => None,
    })
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
    let text = "worker 1 (pid 100) has left; another starts in 100 ms";
    assert_eq!(told(&actions), [text]);
    assert_eq!(level(&actions), Some(Level::Info));
    assert_eq!(scene.pass_to_deadline().1, [Action::Spawn(0)]);
}

#[test]
fn whoever_ends_without_a_word_or_badly_is_warned_of() {
    for (says_so, exit, why) in [
        (false, Exit::Code(0), "exited with code 0"),
        (true, Exit::Code(9), "exited with code 9"),
        (true, Exit::Signal(SIGKILL), "was ended by SIGKILL"),
    ] {
        let mut scene = Scene::serving(1);
        if says_so {
            scene.fleet.takes_leave(0, scene.now);
            scene.fleet.take_actions();
        }
        let actions = scene.exit(0, exit);
        let text = format!("worker 1 (pid 100) {why}; another starts in 100 ms");
        assert_eq!(told(&actions), [text]);
        assert_eq!(level(&actions), Some(Level::Warning));
        // What it said does not count for the next one.
        scene.pass_to_deadline();
        scene.boot(0);
        let actions = scene.exit(0, Exit::Code(0));
        assert_eq!(level(&actions), Some(Level::Warning));
    }
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
    scene.fleet.engine_idle(scene.now);
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
