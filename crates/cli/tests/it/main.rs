//! Tests of the real `berthold` against real engines. Each test has a home, a port range and names of its own, so that
//! all can run side by side.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod broker_life;
mod chaos;
mod choosing;
mod clock;
mod commands;
mod conformance;
mod container;
mod crash;
mod defects;
mod demo;
mod docker;
mod documents;
mod elsewhere;
mod history;
mod http_api;
mod kubernetes;
mod leases;
mod lessons;
mod observer;
mod podman;
mod preview;
mod preview_answers;
mod preview_browser;
mod process;
mod reconcile;
mod run;
mod support;
mod truth;
mod typist;
mod web;
