//! The control thread: carries out what the fleet decides and tells it what has happened. It
//! sleeps in epoll until a worker, the engine, a signal or a deadline has something for it.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::engine::{ControlEvent, Engine, LaneHandle};
use crate::message::{Control, Hello, MAX_CONTROL_PACKET, Welcome, choose_abi};
use crate::sys::epoll::{self, Epoll, Events};
use crate::sys::process::{Exit, Process};
use crate::sys::seqpacket::Seqpacket;
use crate::sys::signal::{self, Signals};

use super::WorkerCommand;
use super::event::{Event, Outcome};
use super::fleet::{Action, Fleet, Patience};

/// The variable in which a worker finds its end of the control socket.
const BUS_VARIABLE: &str = "TOOLB_BUS";

const SIGNALS: u64 = 0;
const ENGINE: u64 = 1;
/// Worker `i` has this plus `2 * i` for its process and the number after that for its socket.
const WORKERS: u64 = 2;

/// Packets taken from one worker in a turn, so that a flood from one delays nobody else.
const PACKETS_A_TURN: usize = 16;

/// Packets taken from a worker that has ended; children of it may go on writing.
const LAST_PACKETS: usize = 256;

/// A running server.
pub(super) struct Supervisor<'a> {
    engine: Engine,
    /// The doors open when the first worker is ready.
    engine_started: bool,
    signals: Signals,
    epoll: Epoll,
    fleet: Fleet,
    links: Vec<Link>,
    command: WorkerCommand,
    stuck_grace: Duration,
    open_files: Option<u64>,
    tell: &'a mut dyn FnMut(Event),
    packet: Vec<u8>,
    outcome: Option<Outcome>,
}

/// What connects us with a worker.
#[derive(Default)]
struct Link {
    process: Option<Process>,
    socket: Option<Seqpacket>,
    lane: Option<Arc<LaneHandle>>,
}

/// How the supervisor is set up.
pub(super) struct Setup {
    pub(super) command: WorkerCommand,
    pub(super) workers: usize,
    pub(super) patience: Patience,
    pub(super) stuck_grace: Duration,
    /// The soft limit of open files for workers.
    pub(super) open_files: Option<u64>,
}

impl<'a> Supervisor<'a> {
    pub(super) fn new(
        engine: Engine,
        signals: Signals,
        setup: Setup,
        tell: &'a mut dyn FnMut(Event),
    ) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        epoll.add(&signals, SIGNALS, epoll::IN)?;
        epoll.add(engine.control_events(), ENGINE, epoll::IN)?;
        let hint = setup.command.if_ended.clone();
        let now = Instant::now();
        Ok(Self {
            engine,
            engine_started: false,
            signals,
            epoll,
            fleet: Fleet::new(setup.workers, setup.patience, hint, now),
            links: (0..setup.workers).map(|_| Link::default()).collect(),
            command: setup.command,
            stuck_grace: setup.stuck_grace,
            open_files: setup.open_files,
            tell,
            packet: vec![0; MAX_CONTROL_PACKET],
            outcome: None,
        })
    }

    /// Returns when the engine and all workers have ended.
    pub(super) fn run(&mut self) -> io::Result<Outcome> {
        let mut events = Events::with_capacity(64);
        loop {
            self.fleet.tick(Instant::now());
            self.carry_out();
            if let Some(outcome) = self.outcome {
                self.engine.stop();
                if outcome != Outcome::StartFailed {
                    (self.tell)(Event::Stopped);
                }
                return Ok(outcome);
            }
            let deadline = self.fleet.next_deadline();
            let timeout = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            self.epoll.wait(&mut events, timeout)?;
            // Signals first: a worker that ends because the whole process group was told to is
            // not to be replaced.
            if events.iter().any(|(token, _)| token == SIGNALS) {
                self.take_signals();
            }
            for (token, _) in events.iter() {
                match token {
                    SIGNALS => {}
                    ENGINE => self.take_engine_events(),
                    token => {
                        let index = (token - WORKERS) as usize / 2;
                        match (token - WORKERS) % 2 {
                            0 => self.take_exit(index),
                            _ => self.take_packets(index, PACKETS_A_TURN),
                        }
                    }
                }
                self.carry_out();
            }
        }
    }

    fn take_signals(&mut self) {
        while let Some(number) = self.signals.next() {
            self.fleet
                .stop(number, signal::name(number), Instant::now());
        }
    }

    fn take_engine_events(&mut self) {
        self.engine.control_events().drain();
        while let Some(event) = self.engine.next_control_event() {
            match event {
                ControlEvent::Idle => self.fleet.engine_idle(),
                ControlEvent::Poisoned { lane_id, reason } => {
                    if let Some(index) = self.worker_of(lane_id) {
                        self.fleet.poisoned(index, reason);
                    }
                }
                ControlEvent::Stuck { lane_id } => {
                    if let Some(index) = self.worker_of(lane_id) {
                        self.fleet.stuck(index, self.stuck_grace, Instant::now());
                    }
                }
                ControlEvent::Released { .. } => {}
            }
        }
    }

    /// The worker that has this lane now; a late word about a lane that is gone concerns nobody.
    fn worker_of(&self, lane_id: u64) -> Option<usize> {
        let has_lane = |link: &Link| link.lane.as_ref().is_some_and(|l| l.lane_id() == lane_id);
        self.links.iter().position(has_lane)
    }

    fn take_exit(&mut self, index: usize) {
        let Some(process) = &mut self.links[index].process else {
            return;
        };
        let exit = match process.try_wait() {
            Ok(Some(exit)) => exit,
            Ok(None) => return,
            // Somebody else has reaped it: it has ended, and nobody knows how.
            Err(_) => Exit::Code(-1),
        };
        // Its last words come before its end.
        self.take_packets(index, LAST_PACKETS);
        self.fleet.exited(index, exit, Instant::now());
        self.close_socket(index);
        if let Some(process) = self.links[index].process.take() {
            let _ = self.epoll.delete(&process);
        }
    }

    fn take_packets(&mut self, index: usize, most: usize) {
        for _ in 0..most {
            let Some(socket) = &self.links[index].socket else {
                return;
            };
            // Descriptors are not asked for; whatever comes is closed.
            let received = socket.recv(&mut self.packet, &mut Vec::new());
            let now = Instant::now();
            let taken = match received {
                Ok(0) => {
                    self.close_socket(index);
                    self.fleet.hung_up(index, now);
                    return;
                }
                Ok(len) => Control::decode(&self.packet[..len])
                    .map_err(|error| error.to_string())
                    .and_then(|control| self.take_packet(index, control, now)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => Err(error.to_string()),
            };
            if let Err(why) = taken {
                self.fleet.refused(index, why, now);
                // The refusal is the last word on this socket.
                self.carry_out();
                return self.close_socket(index);
            }
        }
    }

    fn take_packet(&mut self, index: usize, control: Control, now: Instant) -> Result<(), String> {
        match control {
            Control::Hello(hello) => {
                self.welcome(index, &hello)?;
                self.fleet.greeted(index);
            }
            Control::Ready => self.fleet.ready(index, now),
            Control::Failed { reason, permanent } => {
                self.fleet.failed(index, reason, permanent, now);
            }
            Control::Error(why) => self.fleet.complained(index, why, now),
            // Its exit is what counts.
            Control::Draining | Control::Drained => {}
            Control::Welcome(_) | Control::Drain => {
                return Err("it sent what only the engine says".to_owned());
            }
        }
        Ok(())
    }

    /// Makes a lane for a worker that has introduced itself.
    fn welcome(&mut self, index: usize, hello: &Hello) -> Result<(), String> {
        let link = &mut self.links[index];
        let Some(socket) = &link.socket else {
            return Ok(());
        };
        if link.lane.is_some() {
            return Err("it said hello twice".to_owned());
        }
        let abi = choose_abi(hello)?;
        let (slots, concurrency, window) = (hello.slots, hello.concurrency, hello.window);
        if slots == 0 || concurrency == 0 || window == 0 {
            return Err(format!(
                "slots, concurrency and window must be more than 0 (they are {slots}, {concurrency} and {window})"
            ));
        }
        let lane = self
            .engine
            .new_lane(slots, concurrency, window)
            .map_err(|error| format!("its lane cannot be made: {error}"))?;
        let geometry = lane.geometry();
        let welcome = Control::Welcome(Welcome {
            abi,
            features: 0,
            lane_id: lane.lane_id(),
            rings: geometry.rings,
            slots: geometry.slots,
            request_capacity: geometry.request_capacity,
            response_capacity: geometry.response_capacity,
        });
        let sent = socket.send(&welcome.encode(), &lane.fds());
        link.lane = Some(lane);
        sent.map_err(|error| format!("its lane cannot be sent: {error}"))
    }

    fn carry_out(&mut self) {
        let mut actions = VecDeque::from(self.fleet.take_actions());
        while let Some(action) = actions.pop_front() {
            self.act(action);
            actions.extend(self.fleet.take_actions());
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Spawn(index) => match self.spawn(index) {
                Ok(pid) => self.fleet.spawned(index, pid),
                Err(why) => self.fleet.spawn_failed(index, why, Instant::now()),
            },
            Action::LaneUp(index) => self.lane_up(index),
            Action::LaneDraining(index) => {
                if let Some(lane) = &self.links[index].lane {
                    self.engine.lane_draining(lane);
                }
            }
            Action::LaneDown(index) => {
                if let Some(lane) = self.links[index].lane.take() {
                    self.engine.lane_down(&lane);
                }
            }
            Action::TellDrain(index) => self.send(index, &Control::Drain),
            Action::TellError(index, why) => self.send(index, &Control::Error(why)),
            Action::Terminate(index) => self.signal(index, signal::SIGTERM),
            Action::Abort(index) => self.signal(index, signal::SIGABRT),
            Action::Kill(index) => {
                if let Some(process) = &self.links[index].process {
                    process.kill();
                }
            }
            Action::DrainEngine => {
                self.engine.drain();
                if !self.engine_started {
                    self.fleet.engine_idle();
                }
            }
            Action::Serving => (self.tell)(Event::Serving {
                addresses: self.engine.addresses(),
                workers: self.links.len(),
                loops: self.engine.loops(),
            }),
            Action::Tell(event) => (self.tell)(event),
            Action::Finish(outcome) => self.outcome = Some(outcome),
        }
    }

    fn lane_up(&mut self, index: usize) {
        let Some(lane) = &self.links[index].lane else {
            return;
        };
        self.engine.lane_up(lane);
        if self.engine_started {
            return;
        }
        match self.engine.start() {
            Ok(()) => self.engine_started = true,
            Err(error) => {
                let why = format!("a loop cannot be started: {error}; lower --io-threads");
                self.fleet.fail(why, Instant::now());
            }
        }
    }

    fn spawn(&mut self, index: usize) -> Result<u32, String> {
        self.try_spawn(index).map_err(|error| {
            let program = self.command.program.to_string_lossy();
            let hint = match &self.command.if_not_run {
                Some(hint) => format!("; {hint}"),
                None => String::new(),
            };
            format!("cannot be started: {program}: {error}{hint}")
        })
    }

    fn try_spawn(&mut self, index: usize) -> io::Result<u32> {
        let (ours, theirs) = Seqpacket::pair()?;
        ours.set_nonblocking(true)?;
        let mut command = Command::new(&self.command.program);
        command
            .args(&self.command.args)
            .env(BUS_VARIABLE, format!("fd:{}", theirs.as_raw_fd()));
        let process = Process::spawn(command, theirs.as_fd(), self.open_files)?;
        let token = WORKERS + 2 * index as u64;
        self.epoll.add(&process, token, epoll::IN)?;
        self.epoll.add(&ours, token + 1, epoll::IN)?;
        let pid = process.pid();
        let link = &mut self.links[index];
        link.process = Some(process);
        link.socket = Some(ours);
        Ok(pid)
    }

    fn send(&self, index: usize, control: &Control) {
        if let Some(socket) = &self.links[index].socket {
            // Who does not read, or has gone, is dealt with at its deadline or exit.
            let _ = socket.send(&control.encode(), &[]);
        }
    }

    fn signal(&self, index: usize, signal: i32) {
        if let Some(process) = &self.links[index].process {
            process.signal(signal);
        }
    }

    fn close_socket(&mut self, index: usize) {
        if let Some(socket) = self.links[index].socket.take() {
            let _ = self.epoll.delete(&socket);
        }
    }
}
