//! libtoolb: the C ABI of toolB. The header `include/toolb.h` is generated from this crate; its
//! first lines state the conventions that every function keeps.

#![allow(non_camel_case_types)]

mod bus;
mod callback;
mod consumer;
mod context;
mod engine;
mod exchange;
mod guard;
mod handler;
mod last_error;
mod log;
mod on_loop;
mod options;
mod request;
mod service;
mod stats;
mod status;
mod stream;
mod token;

pub use bus::*;
pub use callback::*;
pub use consumer::*;
pub use engine::*;
pub use exchange::*;
pub use handler::*;
pub use last_error::*;
pub use log::*;
pub use on_loop::*;
pub use options::*;
pub use service::*;
pub use stats::*;
pub use status::*;
pub use stream::*;
pub use token::*;

/// The version of the ABI this library speaks. Within one version structs only grow at their end
/// and functions are only added.
pub const TOOLB_ABI_VERSION: u32 = 1;

/// The version of the ABI that the loaded library speaks. A program compares it with the
/// `TOOLB_ABI_VERSION` it was compiled with. Any thread, any time.
#[unsafe(no_mangle)]
pub extern "C" fn toolb_abi_version() -> u32 {
    TOOLB_ABI_VERSION
}

/// The release of the loaded library, such as "0.1.0". Never freed. Any thread, any time.
#[unsafe(no_mangle)]
pub extern "C" fn toolb_version() -> *const std::ffi::c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
