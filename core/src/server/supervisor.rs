//! The control thread: carries out what the fleet decides and tells it what has happened. It
//! sleeps in epoll until a worker, the engine, a signal or a deadline has something for it.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::engine::{ControlEvent, Snapshot};
use crate::message::{Control, MAX_CONTROL_PACKET};
use crate::sys::epoll::{self, Epoll, Events};
use crate::sys::file;
use crate::sys::process::{self, Exit, Process};
use crate::sys::seqpacket::Seqpacket;
use crate::sys::shortage;
use crate::sys::signal::{self, Signals};

use super::WorkerCommand;
use super::event::{Event, Outcome};
use super::fleet::{Action, Fleet, Patience};
use super::home::Home;

/// The variable in which a worker finds the engine: its end of the control socket, or the address
/// of an engine elsewhere.
const BUS_VARIABLE: &str = "TOOLB_BUS";
/// The variable in which a worker of an engine elsewhere finds its end of the control socket.
const SUPERVISOR_VARIABLE: &str = "TOOLB_SUPERVISOR";

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
    home: Home,
    signals: Signals,
    epoll: Epoll,
    fleet: Fleet,
    links: Vec<Link>,
    command: WorkerCommand,
    open_files: Option<u64>,
    tell: &'a mut dyn FnMut(Event),
    packet: Vec<u8>,
    outcome: Option<Outcome>,
    /// All workers have been ready.
    serving: bool,
    /// What was last told of the engine elsewhere: whether it is there.
    told: Option<bool>,
    /// What is to be told of workers that have gone, by lane, once it is known what has become of their
    /// requests.
    fading: Vec<(u64, Event)>,
    /// The counters when the workers were told to hurry, and how long they had had.
    hurried: Option<(Snapshot, Duration)>,
}

/// What connects us with a worker.
#[derive(Default)]
struct Link {
    process: Option<Process>,
    socket: Option<Seqpacket>,
    /// Whether it is with an engine elsewhere, as far as it has said.
    attached: Option<bool>,
    /// The lane that it has left behind.
    former_lane: Option<u64>,
}

/// How the supervisor is set up.
pub(super) struct Setup {
    pub(super) command: WorkerCommand,
    pub(super) workers: usize,
    pub(super) patience: Patience,
    /// The soft limit of open files for workers.
    pub(super) open_files: Option<u64>,
}

impl<'a> Supervisor<'a> {
    pub(super) fn new(
        home: Home,
        signals: Signals,
        setup: Setup,
        tell: &'a mut dyn FnMut(Event),
    ) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        epoll.add(&signals, SIGNALS, epoll::IN)?;
        if let Home::Here(here) = &home {
            epoll.add(here.engine.control_events(), ENGINE, epoll::IN)?;
        }
        let hint = setup.command.if_ended.clone();
        let now = Instant::now();
        Ok(Self {
            home,
            signals,
            epoll,
            fleet: Fleet::new(setup.workers, setup.patience, hint, now),
            links: (0..setup.workers).map(|_| Link::default()).collect(),
            command: setup.command,
            open_files: setup.open_files,
            tell,
            packet: vec![0; MAX_CONTROL_PACKET],
            outcome: None,
            serving: false,
            told: None,
            fading: Vec::new(),
            hurried: None,
        })
    }

    /// Returns when the engine and all workers have ended.
    pub(super) fn run(&mut self) -> io::Result<Outcome> {
        let mut events = Events::with_capacity(64);
        loop {
            self.fleet.tick(Instant::now());
            self.carry_out();
            if let Some(outcome) = self.outcome {
                let outcome = self.stop_engine(outcome);
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

    /// Ends the engine. What it has counted tells whether requests were cut off.
    fn stop_engine(&mut self, outcome: Outcome) -> Outcome {
        let Home::Here(here) = &mut self.home else {
            return outcome;
        };
        here.engine.stop();
        self.take_engine_events();
        for (_, event) in std::mem::take(&mut self.fading) {
            (self.tell)(event);
        }
        let Home::Here(here) = &self.home else {
            return outcome;
        };
        let Some((then, limit)) = self.hurried.take() else {
            return outcome;
        };
        let requests = here.engine.stats().cut_since(&then);
        if requests == 0 || !matches!(outcome, Outcome::Stopped | Outcome::Cut) {
            return outcome;
        }
        (self.tell)(Event::Unfinished { requests, limit });
        Outcome::Cut
    }

    fn take_signals(&mut self) {
        while let Some(number) = self.signals.next() {
            self.fleet
                .stop(number, signal::name(number), Instant::now());
        }
    }

    fn take_engine_events(&mut self) {
        let Home::Here(here) = &self.home else {
            return;
        };
        here.engine.control_events().drain();
        while let Some(event) = here.engine.next_control_event() {
            match event {
                ControlEvent::Idle => self.fleet.engine_idle(Instant::now()),
                ControlEvent::Poisoned { lane_id, reason } => {
                    if let Some(index) = here.worker_of(lane_id) {
                        self.fleet.poisoned(index, reason);
                    }
                }
                ControlEvent::Stuck { lane_id } => {
                    if let Some(index) = here.worker_of(lane_id) {
                        self.fleet.stuck(index, Instant::now());
                    }
                }
                ControlEvent::Crowded {
                    lane_id,
                    left,
                    slots,
                } => {
                    if let Some(index) = here.worker_of(lane_id) {
                        self.fleet.crowded(index, left, slots, Instant::now());
                    }
                }
                ControlEvent::Settled { lane_id } => {
                    if let Some(index) = here.worker_of(lane_id) {
                        self.fleet.settled(index, Instant::now());
                    }
                }
                ControlEvent::Released { lane_id, toll } => {
                    let place = self.fading.iter().position(|(lane, _)| *lane == lane_id);
                    if let Some(place) = place {
                        let (_, event) = self.fading.remove(place);
                        (self.tell)(event.with(toll));
                    }
                }
                // Why there is none was told.
                ControlEvent::Deserted => {}
            }
        }
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
        self.links[index].attached = None;
        if let Some(process) = self.links[index].process.take() {
            let _ = self.epoll.delete(&process);
        }
    }

    fn take_packets(&mut self, index: usize, most: usize) {
        for _ in 0..most {
            let Some(socket) = &self.links[index].socket else {
                return;
            };
            let mut fds = Vec::new();
            let received = socket.recv(&mut self.packet, &mut fds);
            let now = Instant::now();
            let taken = match received {
                Ok(0) => {
                    self.close_socket(index);
                    self.fleet.hung_up(index, now);
                    return;
                }
                Ok(len) => match Control::decode(&self.packet[..len]) {
                    Ok(file @ Control::File { .. }) => match &self.home {
                        Home::Here(here) => here.take_file(index, &file, fds),
                        Home::Elsewhere(_) => {
                            file::close_elsewhere(fds);
                            Err("its files are for its engine".to_owned())
                        }
                    },
                    _ if !fds.is_empty() => {
                        file::close_elsewhere(fds);
                        Err("it sent descriptors that nobody asked for".to_owned())
                    }
                    Ok(control) => self.take_packet(index, control, now),
                    Err(error) => Err(error.to_string()),
                },
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
                let (Home::Here(here), Some(socket)) = (&mut self.home, &self.links[index].socket)
                else {
                    return Err("it looks for its engine here, which is elsewhere".to_owned());
                };
                here.welcome(index, socket, &hello)?;
                self.fleet.greeted(index);
            }
            Control::Ready => self.fleet.ready(index, now),
            Control::Failed { reason, permanent } => {
                self.fleet.failed(index, reason, permanent, now);
            }
            Control::Error(why) => self.fleet.complained(index, why, now),
            Control::Draining => self.fleet.takes_leave(index, now),
            // Its exit is what counts.
            Control::Drained => {}
            Control::State { attached, why } => {
                if self.fleet.answered(index, attached) {
                    self.links[index].attached = Some(attached);
                    self.tell_of_engine(&why);
                }
            }
            Control::Welcome(_) | Control::Drain { .. } | Control::Ask | Control::File { .. } => {
                return Err("it sent what only the engine says".to_owned());
            }
        }
        Ok(())
    }

    /// Tells when the engine elsewhere was found, and when it was lost: once for all workers.
    fn tell_of_engine(&mut self, why: &str) {
        let Home::Elsewhere(bus) = &self.home else {
            return;
        };
        let known: Vec<bool> = self.links.iter().filter_map(|link| link.attached).collect();
        let all_known = known.len() == self.links.len();
        if !self.serving || !(all_known || self.told.is_some()) {
            return;
        }
        let (workers, bus) = (known.len(), bus.to_string_lossy().into_owned());
        let event = match self.told {
            Some(false) | None if known.iter().all(|&attached| attached) => {
                self.told = Some(true);
                Event::Attached { workers, bus }
            }
            Some(true) | None if !known.contains(&true) => {
                self.told = Some(false);
                let why = why.to_owned();
                Event::Waiting { workers, bus, why }
            }
            _ => return,
        };
        (self.tell)(event);
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
                Ok(pid) => {
                    self.fleet.spawned(index, pid);
                    // It attaches elsewhere, when it likes: here only its start is waited for.
                    if matches!(self.home, Home::Elsewhere(_)) {
                        self.fleet.greeted(index);
                    }
                }
                Err(why) => self.fleet.spawn_failed(index, why, Instant::now()),
            },
            Action::LaneUp(index) => {
                if let Home::Here(here) = &mut self.home
                    && let Err(why) = here.lane_up(index)
                {
                    self.fleet.fail(why, Instant::now());
                }
            }
            Action::LaneDraining(index) => {
                if let Home::Here(here) = &self.home {
                    here.lane_draining(index);
                }
            }
            Action::LaneDown(index) => {
                if let Home::Here(here) = &mut self.home {
                    self.links[index].former_lane = here.lane_down(index);
                }
            }
            Action::TellDrain(index) => {
                let left = self.fleet.time_left(Instant::now());
                self.send(index, &Control::Drain { left });
            }
            Action::Ask(index) => self.send(index, &Control::Ask),
            Action::TellError(index, why) => self.send(index, &Control::Error(why)),
            Action::Terminate(index) => self.signal(index, signal::SIGTERM),
            Action::Abort(index, since) => self.abort(index, since),
            Action::Kill(index) => self.kill(index),
            Action::CutEngine => {
                if let Home::Here(here) = &self.home {
                    here.engine.cut_off();
                }
            }
            Action::DrainEngine => match &self.home {
                Home::Elsewhere(_) => self.fleet.ask_to_finish(Instant::now()),
                Home::Here(here) => {
                    if !here.drain() {
                        self.fleet.engine_idle(Instant::now());
                    }
                }
            },
            Action::Serving => {
                self.serving = true;
                (self.tell)(match &self.home {
                    Home::Elsewhere(bus) => Event::Working {
                        workers: self.links.len(),
                        bus: bus.to_string_lossy().into_owned(),
                    },
                    Home::Here(here) => Event::Serving {
                        addresses: here.engine.addresses(),
                        workers: self.links.len(),
                        loops: here.engine.loops(),
                    },
                });
            }
            Action::Hurry(limit) => {
                if let Home::Here(here) = &self.home {
                    self.hurried = Some((here.engine.stats(), limit));
                }
            }
            Action::Tell(event) => self.tell(event),
            Action::Finish(outcome) => self.outcome = Some(outcome),
        }
    }

    fn tell(&mut self, event: Event) {
        if let Event::Lost { worker, .. } = event
            && let Some(lane) = self.links[worker - 1].former_lane.take()
        {
            return self.fading.push((lane, event));
        }
        (self.tell)(event);
    }

    fn spawn(&mut self, index: usize) -> Result<u32, String> {
        self.try_spawn(index).map_err(|error| {
            let program = self.command.program.to_string_lossy();
            let of_program = self.command.if_not_run.as_deref();
            let hint = match shortage::remedy(&error).or(of_program) {
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
        command.args(&self.command.args);
        let end = format!("fd:{}", theirs.as_raw_fd());
        match &self.home {
            Home::Elsewhere(bus) => command.env(SUPERVISOR_VARIABLE, end).env(BUS_VARIABLE, bus),
            Home::Here(_) => command.env(BUS_VARIABLE, end),
        };
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

    /// Makes it say where it hangs. One that was stopped would say nothing before it goes on.
    fn abort(&mut self, index: usize, since: Duration) {
        let Some(process) = &self.links[index].process else {
            return;
        };
        let pid = process.pid();
        let stopped = process::is_stopped(pid);
        (self.tell)(Event::Stuck {
            worker: index + 1,
            pid,
            since,
            stopped,
        });
        match stopped {
            true => process.kill(),
            false => process.signal(signal::SIGABRT),
        }
    }

    fn kill(&self, index: usize) {
        if let Some(process) = &self.links[index].process {
            process.kill();
        }
    }

    fn close_socket(&mut self, index: usize) {
        if let Some(socket) = self.links[index].socket.take() {
            let _ = self.epoll.delete(&socket);
        }
    }
}
