//! The toolB engine: an application server that owns connections and hands parsed requests to
//! consumer processes over lock-free shared-memory rings.
//!
//! The modules stand on floors; each imports only from floors below it (`ARCHITECTURE.md`).
#![warn(missing_docs)]

pub mod sys;

pub mod config;
pub mod log;
pub mod stats;
pub mod time;

pub mod bus;
pub mod http;
pub mod route;

pub mod message;

pub mod consumer;
pub mod dispatch;

pub mod engine;

pub mod server;
