//! Keys and values from etcd are anybody's bytes: whatever is read of them must render to exactly one
//! seed, one line, one argument. `make fuzz` runs it.

#![no_main]

use crate_discovery::{
    announcement::{Announcement, Port},
    host::Host,
    render::{Format, render},
    snapshot::{Node, Snapshot},
    text,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], &[u8])| {
    let (key, value) = input;
    assert!(!text::escape(key).contains(char::is_control));
    let host = std::str::from_utf8(key).ok().and_then(|key| key.parse::<Host>().ok());
    let announcement = Announcement::from_json(value).ok();
    if let Some(announcement) = &announcement {
        let again = Announcement::from_json(announcement.to_json().as_bytes());
        assert_eq!(again.as_ref().ok(), Some(announcement), "what is written is read back");
    }
    let Some(announcement) = announcement else { return };
    let host = host.unwrap_or_else(|| "a".parse().unwrap());
    let snapshot = Snapshot::new(1, vec![Node { host, announcement }]);
    for (format, lines) in [(Format::Csv, 1), (Format::Lines, 1), (Format::Json, 1), (Format::Env, 2)] {
        let text = render(&snapshot, format, Port::Transport);
        assert_eq!(text.lines().count(), lines, "{text:?}");
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
        if format != Format::Json {
            assert!(!text.contains([' ', '\'', '"', '$', ';', '\\']), "{text:?}");
        }
        if format == Format::Csv {
            assert!(!text.contains(',') && !text.starts_with('-'), "{text:?}");
        }
    }
});
