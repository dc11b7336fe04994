//! One small process for all machines: it is the parent of their inits, so that it knows how each ended, restarts those that
//! asked to be, and keeps their consoles. It starts when it is needed and ends when no machine runs.
//!
//! Stopping and removing do not need it. Should it be killed, the machines go on, and the next one finds them and gets their
//! consoles from the keeper: what it cannot know of them then (on older kernels how one ended) it says.

mod apart;
mod client;
mod console;
mod keeper;
mod message;
mod serve;
mod watch;
mod work;

pub(crate) use client::leave_alone;
pub use client::{Attached, attach, relay, start};
pub use console::logs;
pub use message::Last;
pub(crate) use message::{Given, Hand};
pub use serve::{forget_caller, let_go, supervise};
