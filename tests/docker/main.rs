//! The image and the compose file, on a real docker engine. Every key is read back from outside, by a
//! witness that is not our code.

#[path = "../support/mod.rs"]
mod support;

mod compose;
mod formation;
mod image;
mod lifecycle;
mod memory;
mod network;
mod project;
mod sidekick;
