//! A consumer that writes what it likes into its rings: its lane is given up, or the record counts for
//! nothing; its client gets exactly one answer all the same, and the lane beside it does not notice.
#![forbid(unsafe_code)]

mod anything;
mod cancelled;
mod ends;
mod files;
mod heads;
#[path = "../hostile/mod.rs"]
mod hostile;
mod records;
mod starts;
#[path = "../support/mod.rs"]
mod support;
mod wants;

use std::io::{BufRead, Write};
use std::ops::ControlFlow;
use std::time::Duration;

use hostile::*;
use support::http::{connect, receive};
use support::{Random, Server};
use toolb_core::bus::{self, Kind, RecordHeader, flags::*};
use toolb_core::config::EngineConfig;
use toolb_core::consumer::ConsumerOptions;
use toolb_core::engine::{ControlEvent, Engine};
use toolb_core::message::{Request, encode_response_head};
use toolb_core::sys::memory;

const NOT_CANCELLED: Lane = Lane::Poisoned("nobody called back");
const NOT_IN_FLIGHT: Lane = Lane::Poisoned("not in flight");
