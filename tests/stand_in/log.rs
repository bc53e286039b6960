//! What the stand-in says, and how it ends with a reason.

use std::{
    io::Write,
    process::exit,
    time::{SystemTime, UNIX_EPOCH},
};

/// Says `what` on stdout, after the milliseconds since the epoch and a blank.
pub fn say(what: &str) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // A log that nobody reads any more is no reason to end.
    let _ = writeln!(std::io::stdout(), "{} {what}", now.as_millis());
}

/// Says why, and ends with `code`.
pub fn fail(code: i32, why: &str) -> ! {
    say(&format!("ERROR: {why}"));
    exit(code)
}
