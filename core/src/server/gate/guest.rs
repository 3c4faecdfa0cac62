//! A consumer at the gate: how far it has come, and what it holds.
#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use crate::engine::{Engine, LaneHandle};
use crate::message::{Control, Hello};
use crate::sys::seqpacket::Seqpacket;

use super::super::greet::Terms;

/// A consumer that came by itself.
pub(super) struct Guest {
    pub(super) socket: Seqpacket,
    pub(super) _pidfd: Option<OwnedFd>,
    pub(super) pid: u32,
    /// As it calls itself; empty before its HELLO.
    pub(super) name: String,
    pub(super) stage: Stage,
    pub(super) lane: Option<Arc<LaneHandle>>,
    /// It lives in this process.
    pub(super) own: bool,
}

impl Guest {
    pub(super) fn greet(
        &mut self,
        engine: &Engine,
        terms: &Terms,
        hello: &Hello,
        until: Instant,
    ) -> Result<(), String> {
        self.name = printable(&hello.name);
        self.lane = Some(terms.welcome(engine, &self.socket, hello)?);
        self.stage = Stage::Starting((!self.own).then_some(until));
        Ok(())
    }

    /// When it is too late for what it has to do next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Silent(until) => Some(until),
            Stage::Starting(until) => until,
            Stage::Serving | Stage::Leaving => None,
        }
    }

    pub(super) fn stop_dispatch(&mut self, engine: &Engine) {
        if let Some(lane) = &self.lane {
            engine.lane_draining(lane);
        }
        self.stage = Stage::Leaving;
    }

    /// Who does not read, or has gone, misses it.
    pub(super) fn say(&self, control: &Control) {
        let _ = self.socket.send(&control.encode(), &[]);
    }

    /// Names the lane that the loops are to let go of.
    pub(super) fn settle(self, engine: &Engine) -> Option<u64> {
        let lane = self.lane?;
        engine.lane_down(&lane);
        Some(lane.lane_id())
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stage {
    /// Connected; its HELLO has to come before then.
    Silent(Instant),
    /// It has its lane; its application starts, and has to be ready before then. `None`: it is this
    /// process that waits for itself.
    Starting(Option<Instant>),
    Serving,
    /// It takes no more requests: it said so, or was told so.
    Leaving,
}

/// What a consumer calls itself, fit for a line of a log.
fn printable(name: &str) -> String {
    let fit = |character: &char| !character.is_control();
    name.chars().filter(fit).take(64).collect()
}
