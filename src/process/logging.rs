//! The log on stderr: text for people, or one JSON object per line.
//!
//! If stderr is the journal, each line has a syslog priority (sd-daemon(3)) and no time, because the journal adds its
//! own.

use std::{
    env, fmt,
    io::{self, Write},
    panic,
    time::Duration,
};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    filter::Targets,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{self, JsonFields, Writer},
        layer,
    },
    layer::SubscriberExt,
    registry,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use super::stderr;

/// Starts the log: lines that pass `filter` go to stderr, as text or as `json`. Call it once.
///
/// A line never waits until somebody reads stderr, with one exception: if more lines come at once than can be kept, one
/// of them waits for `patience` before lines are dropped. `patience` is zero if the process must go on in time.
pub fn init(filter: Targets, json: bool, patience: Duration) {
    let layer = layer()
        .with_writer(move || Lines { patience })
        .with_target(false)
        .with_ansi(false)
        // The library would write such errors to stderr itself, and that may block.
        .log_internal_errors(false);
    // The same is true for the message of a panic.
    panic::set_hook(Box::new(|panic| fail(&format!("{panic}\n"))));
    let registry = registry().with(filter);
    match (json, stderr_is_journal()) {
        (false, false) => registry.with(layer).init(),
        (false, true) => {
            let format = format::format().with_target(false).with_ansi(false).without_time();
            registry.with(layer.event_format(Prioritised(format))).init();
        }
        (true, false) => registry.with(layer.json()).init(),
        (true, true) => {
            let format = format::json().with_target(false).without_time();
            registry.with(layer.fmt_fields(JsonFields::new()).event_format(Prioritised(format))).init();
        }
    }
}

/// Writes the last words of a process that failed: `text`, which ends with a newline. Waits as [`flush`] does.
pub fn fail(text: &str) {
    let priority = if stderr_is_journal() { priority(Level::ERROR) } else { "" };
    stderr::write_last(&format!("{priority}{text}"));
}

/// Waits until all log lines are written: at most 1 s, or 200 ms if nobody reads them.
pub fn flush() {
    stderr::flush();
}

/// Takes log lines, one per call.
struct Lines {
    patience: Duration,
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        stderr::write(line, self.patience);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether stderr is the stream of the journal that systemd names in `JOURNAL_STREAM` (systemd.exec(5)).
fn stderr_is_journal() -> bool {
    let Ok(stream) = env::var("JOURNAL_STREAM") else { return false };
    let Ok(stat) = rustix::fs::fstat(io::stderr()) else { return false };
    stream == format!("{}:{}", stat.st_dev, stat.st_ino)
}

fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        _ => "<7>",
    }
}

/// A format that puts the priority before each line.
struct Prioritised<F>(F);

impl<S, N, F> FormatEvent<S, N> for Prioritised<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        writer.write_str(priority(*event.metadata().level()))?;
        self.0.format_event(context, writer, event)
    }
}
