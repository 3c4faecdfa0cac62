//! How a consumer is received: its HELLO is looked at, a lane is made, WELCOME goes back. The same
//! for workers that were started here and for programs that come to the gate.
#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::engine::{Engine, LaneHandle};
use crate::message::{
    Control, FEATURE_FILES, FEATURE_STREAM_TIME, FEATURE_STREAMS, Hello, Welcome, choose_abi,
};
use crate::sys::file;
use crate::sys::seqpacket::Seqpacket;
use crate::sys::shortage;

/// What a consumer must belong to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Terms {
    /// The pool.
    pub(super) pool: String,
    /// The generation of workers.
    pub(super) generation: u32,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            pool: "main".to_owned(),
            generation: 0,
        }
    }
}

impl Terms {
    /// Makes a lane for a consumer and sends it, or says why there is none.
    pub(super) fn welcome(
        &self,
        engine: &Engine,
        socket: &Seqpacket,
        hello: &Hello,
    ) -> Result<Arc<LaneHandle>, String> {
        let abi = choose_abi(hello)?;
        if hello.pool != self.pool {
            return Err(format!(
                "it belongs to the pool {:?}, and this engine has the pool {:?}: name that one",
                hello.pool, self.pool
            ));
        }
        if hello.generation != self.generation {
            return Err(format!(
                "it belongs to generation {} of the workers, and this engine has generation {}: start it again",
                hello.generation, self.generation
            ));
        }
        let (slots, concurrency, window) = (hello.slots, hello.concurrency, hello.window);
        if slots == 0 || concurrency == 0 || window == 0 {
            return Err(format!(
                "slots, concurrency and window must be more than 0 (they are {slots}, {concurrency} and {window})"
            ));
        }
        let streams = match hello.features & FEATURE_STREAMS {
            0 => 0,
            _ => hello.streams,
        };
        let lane = engine
            .new_lane(slots, concurrency, window, streams)
            .map_err(|error| format!("its lane cannot be made: {}", shortage::explain(&error)))?;
        if hello.features & FEATURE_STREAM_TIME != 0 {
            lane.tell_time();
        }
        let geometry = lane.geometry();
        let welcome = Control::Welcome(Welcome {
            abi,
            features: hello.features & FEATURES,
            lane_id: lane.lane_id(),
            rings: geometry.rings,
            slots: geometry.slots,
            request_capacity: geometry.request_capacity,
            response_capacity: geometry.response_capacity,
        });
        match socket.send(&welcome.encode(), &lane.fds()) {
            Ok(()) => Ok(lane),
            Err(error) => {
                engine.lane_down(&lane);
                Err(format!("its lane cannot be sent: {error}"))
            }
        }
    }
}

/// A consumer has sent a file that it answers with.
pub(super) fn take_file(
    engine: &Engine,
    lane: Option<&Arc<LaneHandle>>,
    packet: &Control,
    fds: Vec<OwnedFd>,
) -> Result<(), String> {
    let (
        &Control::File {
            owner,
            slot,
            generation,
        },
        Some(lane),
    ) = (packet, lane)
    else {
        file::close_elsewhere(fds);
        return Err("it sent a file before it had a lane".to_owned());
    };
    match <[OwnedFd; 1]>::try_from(fds) {
        Ok([file]) => Ok(engine.lane_file(lane, owner, slot, generation, file)?),
        Err(fds) => {
            file::close_elsewhere(fds);
            Err("it sent a file without its descriptor".to_owned())
        }
    }
}

/// The optional abilities of this engine.
const FEATURES: u64 = FEATURE_FILES | FEATURE_STREAMS | FEATURE_STREAM_TIME;
