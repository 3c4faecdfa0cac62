//! What PyO3 has no safe form for: type slots, contexts and libuv. The only place of this crate
//! where `unsafe` is allowed; everything it exports is safe to call.

mod abort;
mod calls;
mod native;
mod uv;

pub(crate) use abort::name_aborts;
pub(crate) use calls::{run_in_context, run_in_main_thread, send_into};
pub(crate) use native::{Args, Instance, Kept, Native, Step, Visitor, register, type_cell};
pub(crate) use uv::{UvAttachment, UvHooks};
