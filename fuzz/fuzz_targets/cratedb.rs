//! Whoever listens on the port of a `crate://` check may answer anything: it is judged, within bounds,
//! and only CrateDB's own words make a node. `make fuzz` runs it.

#![no_main]

use crate_discovery::{
    node::{Told, cratedb},
    text,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], u16)| {
    let (bytes, cut) = input;
    // As they came, and as the body of an answer.
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", bytes.len());
    for mut answer in [bytes.to_vec(), [head.as_bytes(), bytes].concat()] {
        // No more is ever read.
        answer.truncate(cratedb::LONGEST);
        let whole = cratedb::judge(&answer, true).expect("what has ended is judged");
        let open = cratedb::judge(&answer, false);
        assert!(answer.len() < cratedb::LONGEST || open.is_some(), "no end is waited for for ever");
        // More bytes change nothing once it is judged.
        let early = cratedb::judge(&answer[..usize::from(cut).min(answer.len())], false);
        assert!(early.is_none() || early == open, "{early:?}, then {open:?}");
        assert!(open.is_none_or(|open| open == whole));
        match whole {
            Ok(Told::Known(node)) => {
                for text in [&node.name, &node.cluster, &node.version] {
                    assert!(text.chars().count() <= 201, "{text:?}");
                    assert!(!text::escape(text.as_bytes()).contains(char::is_control));
                }
                assert!(answer.windows(14).any(|part| part == b"\"cluster_name\"") || answer.contains(&b'\\'));
            }
            Ok(Told::Locked) => assert!(answer.starts_with(b"HTTP/1.") && !answer.starts_with(head.as_bytes())),
            Ok(Told::Nothing) => panic!("a good answer tells something"),
            Err(reason) => assert!(reason.len() < 100 && !reason.contains(char::is_control), "{reason:?}"),
        }
    }
});
