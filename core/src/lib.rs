//! The toolB engine: an application server that owns connections and hands parsed requests to
//! consumer processes over lock-free shared-memory rings.
//!
//! The modules stand on floors; each imports only from floors below it (`ARCHITECTURE.md`).
#![warn(missing_docs)]
#![cfg_attr(loom, allow(dead_code, reason = "the models use a part of the bus"))]

pub mod sys;

#[cfg(not(loom))]
pub mod config;
#[cfg(not(loom))]
pub mod log;
#[cfg(not(loom))]
pub mod stats;
#[cfg(not(loom))]
pub mod time;

pub mod bus;
#[cfg(not(loom))]
pub mod http;
#[cfg(not(loom))]
pub mod route;

#[cfg(not(loom))]
pub mod message;

#[cfg(not(loom))]
pub mod consumer;
#[cfg(not(loom))]
pub mod dispatch;

#[cfg(not(loom))]
pub mod engine;

#[cfg(not(loom))]
pub mod server;
