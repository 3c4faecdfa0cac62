//! Where the engines of tests listen.
#![allow(dead_code, reason = "each test uses a part of it")]

use toolb_core::engine::{Engine, Listen, Routes};

/// A free port, for this machine alone.
pub(crate) fn any_port() -> Listen {
    Listen::Tcp {
        host: "127.0.0.1".into(),
        port: 0,
    }
}

/// All requests go to consumers.
pub(crate) fn to_consumers() -> Routes {
    Routes {
        pool: true,
        ..Routes::default()
    }
}

/// Host and port of the first address that the engine listens on.
pub(crate) fn address_of(engine: &Engine) -> String {
    let url = &engine.addresses()[0];
    let (_, address) = url.split_once("://").unwrap();
    address.to_owned()
}
