//! The Docker runtime on a real engine.
//!
//! Each test makes what it needs under a name of its own and removes it, even if it fails. Where no engine answers, the
//! tests say so and pass, unless `BERTHOLD_REQUIRE` lists `docker`.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "the helpers of the tests do what tests may")]

mod commands;
mod images;
mod lifecycle;
mod refusals;
mod support;
