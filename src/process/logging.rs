//! Logs on stderr: text for people, or one JSON object a line.

use std::io;

use tracing_subscriber::{filter::Targets, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// How a log line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// `<time>  INFO announced key="/services/crate/a" …`
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Sends log lines that pass `filter` to stderr. Called once.
pub fn init(filter: Targets, format: LogFormat) {
    let layer = fmt::layer().with_writer(io::stderr).with_target(false).with_ansi(false);
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Text => registry.with(layer).init(),
        LogFormat::Json => registry.with(layer.json()).init(),
    }
}
