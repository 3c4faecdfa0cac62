//! Whoever watches over the consumer processes: starts each with its plan, hands it its lane, sees it
//! fall, has the engine settle what it held, and starts the next.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use toolb_core::engine::{ControlEvent, Engine, LaneHandle};
use toolb_core::message::{Control, MAX_CONTROL_PACKET, Welcome};
use toolb_core::sys::epoll::{self, Epoll, Events};
use toolb_core::sys::process::{Exit, Process};
use toolb_core::sys::seqpacket::Seqpacket;

use super::application::DIARY;
use super::state_and_group;

/// Consumers at a time.
const MEMBERS: usize = 4;
/// A point that is not reached in this time is not reached at all.
const NEVER: Duration = Duration::from_secs(60);
/// How long one stands still before it is killed or goes on.
const STANDSTILL: Duration = Duration::from_millis(60);
/// How long one serves before it is told to leave.
const SERVICE: Duration = Duration::from_millis(30);
const SIGKILL: i32 = 9;
const SIGCONT: i32 = 18;

const ENGINE: u64 = 0;

/// Where and how a consumer falls.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) point: &'static str,
    pub(crate) count: u64,
    pub(crate) how: How,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum How {
    /// Exits and leaves a child behind that holds all its descriptors.
    Fork,
    Kill,
    /// Stands still, then goes on.
    Pause,
    /// Stands still until it is killed.
    Stop,
}

/// Some consumers, and the plans of those to come.
pub(crate) struct Fleet<'a> {
    engine: &'a Engine,
    diary: &'a Path,
    epoll: Epoll,
    plans: VecDeque<Plan>,
    members: Vec<Member>,
    /// When each one died.
    pub(crate) deaths: Vec<Instant>,
    /// How many fell at which point.
    pub(crate) fallen: HashMap<(&'static str, How), usize>,
    pub(crate) pids: Vec<u32>,
}

struct Member {
    /// None: serves until the end.
    plan: Option<Plan>,
    process: Process,
    socket: Seqpacket,
    lane: Option<Arc<LaneHandle>>,
    phase: Phase,
    since: Instant,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Starting,
    Serving,
    /// Was told to leave.
    Leaving,
    /// Stands still.
    Still,
    /// Stood still and goes on for a while.
    Resumed,
    /// Has ended; the engine settles what it held.
    Settling,
    Gone,
}

impl<'a> Fleet<'a> {
    pub(crate) fn new(engine: &'a Engine, diary: &'a Path, plans: Vec<Plan>) -> Self {
        let epoll = Epoll::new().unwrap();
        epoll
            .add(engine.control_events(), ENGINE, epoll::IN)
            .unwrap();
        Self {
            engine,
            diary,
            epoll,
            plans: plans.into(),
            members: Vec::new(),
            deaths: Vec::new(),
            fallen: HashMap::new(),
            pids: Vec::new(),
        }
    }

    /// Returns when every plan has come true; consumers without one serve on.
    pub(crate) fn carry_out(&mut self) {
        for index in 0..MEMBERS {
            let member = self.spawn(index);
            self.members.push(member);
        }
        while self.members.iter().any(|member| member.plan.is_some()) {
            self.turn();
        }
    }

    /// Returns when nothing of it is left.
    pub(crate) fn end(&mut self) {
        for member in &self.members {
            member.process.signal(SIGKILL);
        }
        while self
            .members
            .iter()
            .any(|member| member.phase != Phase::Gone)
        {
            self.turn();
        }
        self.members.clear();
    }

    fn turn(&mut self) {
        let mut events = Events::with_capacity(16);
        let pause = Some(Duration::from_millis(5));
        self.epoll.wait(&mut events, pause).unwrap();
        for (token, _) in events.iter() {
            match token {
                ENGINE => self.take_engine_events(),
                token if token % 2 == 1 => self.take_exit(token as usize / 2),
                token => self.take_packet(token as usize / 2 - 1),
            }
        }
        for index in 0..self.members.len() {
            self.look_after(index);
        }
    }

    fn spawn(&mut self, index: usize) -> Member {
        let plan = self.plans.pop_front();
        let (ours, theirs) = Seqpacket::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "consumer_process", "--nocapture"])
            .env("TOOLB_BUS", format!("fd:{}", theirs.as_raw_fd()))
            .env(DIARY, self.diary)
            .stdout(Stdio::null());
        if let Some(Plan { point, count, how }) = &plan {
            let how = match how {
                How::Fork => "fork",
                How::Kill => "kill",
                How::Pause | How::Stop => "stop",
            };
            command.env("TOOLB_CRASH", format!("{point}:{count}:{how}"));
        }
        let process = Process::spawn(command, theirs.as_fd(), None).unwrap();
        let token = 2 * index as u64 + 1;
        self.epoll.add(&process, token, epoll::IN).unwrap();
        self.epoll.add(&ours, token + 1, epoll::IN).unwrap();
        self.pids.push(process.pid());
        Member {
            plan,
            process,
            socket: ours,
            lane: None,
            phase: Phase::Starting,
            since: Instant::now(),
        }
    }

    fn take_engine_events(&mut self) {
        self.engine.control_events().drain();
        while let Some(event) = self.engine.next_control_event() {
            let ControlEvent::Released { lane_id, .. } = event else {
                panic!("nobody broke a rule or was late: {event:?}");
            };
            let settled = |member: &Member| {
                let lane = member.lane.as_ref();
                member.phase == Phase::Settling && lane.is_some_and(|l| l.lane_id() == lane_id)
            };
            let index = self.members.iter().position(settled).unwrap();
            self.bury(index);
        }
    }

    fn take_packet(&mut self, index: usize) {
        let member = &mut self.members[index];
        let mut packet = vec![0; MAX_CONTROL_PACKET];
        let len = match member.socket.recv(&mut packet, &mut Vec::new()) {
            Ok(len) if len > 0 => len,
            // It has hung up: its exit is what counts.
            Ok(_) => return self.epoll.delete(&member.socket).unwrap(),
            Err(_) => return,
        };
        match Control::decode(&packet[..len]).unwrap() {
            Control::Hello(hello) => {
                let lane = self
                    .engine
                    .new_lane(hello.slots, hello.concurrency, hello.window, 0)
                    .unwrap();
                let geometry = lane.geometry();
                let welcome = Control::Welcome(Welcome {
                    abi: toolb_core::bus::ABI,
                    features: 0,
                    lane_id: lane.lane_id(),
                    rings: geometry.rings,
                    slots: geometry.slots,
                    request_capacity: geometry.request_capacity,
                    response_capacity: geometry.response_capacity,
                });
                // Who died in the meantime is noticed as such.
                let _ = member.socket.send(&welcome.encode(), &lane.fds());
                member.lane = Some(lane);
            }
            Control::Ready => {
                self.engine.lane_up(member.lane.as_ref().unwrap());
                if member.phase == Phase::Starting {
                    (member.phase, member.since) = (Phase::Serving, Instant::now());
                }
            }
            Control::Draining | Control::Drained => {}
            other => panic!("{other:?}"),
        }
    }

    fn take_exit(&mut self, index: usize) {
        let member = &mut self.members[index];
        self.epoll.delete(&member.process).unwrap();
        self.deaths.push(Instant::now());
        member.phase = Phase::Settling;
        match &member.lane {
            // It is not reaped yet, so that a child it left behind lives and holds the socket open.
            Some(lane) => self.engine.lane_down(lane),
            None => self.bury(index),
        }
    }

    /// Nothing of it is left in the engine.
    fn bury(&mut self, index: usize) {
        let member = &mut self.members[index];
        member.process.kill();
        let exit = member.process.try_wait().unwrap().unwrap();
        let Some(plan) = member.plan.take() else {
            assert_eq!(exit, Exit::Signal(SIGKILL));
            member.phase = Phase::Gone;
            return;
        };
        // Who stood still while it was leaving has left since.
        let left = plan.how == How::Pause && plan.point == "draining";
        let expected = match plan.how {
            How::Fork => Exit::Code(0),
            How::Kill | How::Pause | How::Stop => Exit::Signal(SIGKILL),
        };
        let as_planned = exit == expected || left && exit == Exit::Code(0);
        assert!(as_planned, "{plan:?} came to {exit:?}");
        *self.fallen.entry((plan.point, plan.how)).or_default() += 1;
        self.members[index] = self.spawn(index);
    }

    /// What is to be done with the passing of time.
    fn look_after(&mut self, index: usize) {
        let member = &mut self.members[index];
        let Some(plan) = &member.plan else {
            return;
        };
        let now = Instant::now();
        let so_far = now - member.since;
        let next = match member.phase {
            Phase::Settling | Phase::Gone => return,
            Phase::Starting | Phase::Serving | Phase::Leaving
                if is_still(&member.process) && matches!(plan.how, How::Pause | How::Stop) =>
            {
                Phase::Still
            }
            Phase::Serving if plan.point == "draining" && so_far > SERVICE => {
                let lane = member.lane.as_ref().unwrap();
                self.engine.lane_draining(lane);
                let _ = member
                    .socket
                    .send(&Control::Drain { left: None }.encode(), &[]);
                Phase::Leaving
            }
            Phase::Still if so_far > STANDSTILL && plan.how == How::Pause => {
                member.process.signal(SIGCONT);
                Phase::Resumed
            }
            Phase::Still | Phase::Resumed if so_far > STANDSTILL => {
                member.process.signal(SIGKILL);
                return;
            }
            _ => return assert!(so_far < NEVER, "{plan:?} does not come true"),
        };
        (member.phase, member.since) = (next, now);
    }
}

fn is_still(process: &Process) -> bool {
    state_and_group(&process.pid().to_string()).is_some_and(|(state, _)| state == 'T')
}
