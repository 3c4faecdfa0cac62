//! Where the requests of supervised workers come from: an engine of this process, or one elsewhere
//! to which the workers attach themselves.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::engine::{Engine, LaneHandle};
use crate::message::{Control, Hello};
use crate::sys::seqpacket::Seqpacket;

use super::greet::{self, Terms};

/// The engine, as the supervisor sees it.
pub(super) enum Home {
    /// Workers look for an engine at this address.
    Elsewhere(OsString),
    /// The engine is in this process.
    Here(Box<Here>),
}

/// An engine of this process and the lanes of its workers.
pub(super) struct Here {
    pub(super) engine: Engine,
    /// The doors open when the first worker is ready.
    started: bool,
    /// By worker.
    lanes: Vec<Option<Arc<LaneHandle>>>,
    terms: Terms,
}

impl Here {
    pub(super) fn new(engine: Engine, workers: usize) -> Self {
        Self {
            engine,
            started: false,
            lanes: (0..workers).map(|_| None).collect(),
            terms: Terms::default(),
        }
    }

    /// Makes a lane for a worker that has introduced itself.
    pub(super) fn welcome(
        &mut self,
        worker: usize,
        socket: &Seqpacket,
        hello: &Hello,
    ) -> Result<(), String> {
        if self.lanes[worker].is_some() {
            return Err("it said hello twice".to_owned());
        }
        let lane = self.terms.welcome(&self.engine, socket, hello)?;
        self.lanes[worker] = Some(lane);
        Ok(())
    }

    /// Opens its lane for dispatch, and the doors if they are closed.
    pub(super) fn lane_up(&mut self, worker: usize) -> Result<(), String> {
        let Some(lane) = &self.lanes[worker] else {
            return Ok(());
        };
        self.engine.lane_up(lane);
        if !self.started {
            self.engine.start().map_err(|error| {
                format!("a loop cannot be started: {error}; lower --io-threads")
            })?;
            self.started = true;
        }
        Ok(())
    }

    /// A worker answers with a file.
    pub(super) fn take_file(
        &self,
        worker: usize,
        packet: &Control,
        fds: Vec<OwnedFd>,
    ) -> Result<(), String> {
        greet::take_file(&self.engine, self.lanes[worker].as_ref(), packet, fds)
    }

    pub(super) fn lane_draining(&self, worker: usize) {
        if let Some(lane) = &self.lanes[worker] {
            self.engine.lane_draining(lane);
        }
    }

    /// Names the lane if the loops will tell what has become of its requests.
    pub(super) fn lane_down(&mut self, worker: usize) -> Option<u64> {
        let lane = self.lanes[worker].take()?;
        self.engine.lane_down(&lane);
        self.started.then(|| lane.lane_id())
    }

    /// Stops accepting. False: it never began, so nobody will tell that it is idle.
    pub(super) fn drain(&self) -> bool {
        self.engine.drain();
        self.started
    }

    /// The worker that has this lane now; a late word about a lane that is gone concerns nobody.
    pub(super) fn worker_of(&self, lane_id: u64) -> Option<usize> {
        let is_it = |lane: &Arc<LaneHandle>| lane.lane_id() == lane_id;
        self.lanes
            .iter()
            .position(|lane| lane.as_ref().is_some_and(is_it))
    }
}
