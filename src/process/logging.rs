//! Logs on stderr: text for people, or one JSON object a line.

use std::io;

use tracing_subscriber::{filter::Targets, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// Sends log lines that pass `filter` to stderr, as text or as `json`. Called once.
pub fn init(filter: Targets, json: bool) {
    let layer = fmt::layer().with_writer(io::stderr).with_target(false).with_ansi(false);
    let registry = tracing_subscriber::registry().with(filter);
    if json {
        registry.with(layer.json()).init();
    } else {
        registry.with(layer).init();
    }
}
