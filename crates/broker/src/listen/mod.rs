//! The address on which browsers, and clients with the token, reach the broker: binding it, taking connections on it, in plain or
//! over TLS, and serving them.
//!
//! Anyone who reaches the address may connect, so connections cost little: there are no more than the limit of open files leaves for
//! them (the Unix socket and the runtimes have theirs), and those on which nothing is asked are ended.

mod address;
mod deal;
mod serve;
mod ticks;

pub(crate) use self::address::{Address, ListenError, Listener};
pub(crate) use self::deal::Share;
pub(crate) use self::serve::serve;
