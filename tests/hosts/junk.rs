//! What else may lie under the prefix: skipped with a warning, never a reason to hide anybody.

use crate::{
    printed,
    support::{
        DEFAULT_VALUE, PATIENCE, PREFIX,
        daemon::{hosts, message_of, run, run_within},
        key_of,
        observer::Raw,
    },
    three,
};

/// `(what follows the prefix, value, how the warning shows the key)`
const JUNK: [(&[u8], &[u8], &str); 20] = [
    (b"new\nline", DEFAULT_VALUE.as_bytes(), r"new\nline"),
    (b"escape\x1b[31m", DEFAULT_VALUE.as_bytes(), r"escape\"),
    (b"nul\0", DEFAULT_VALUE.as_bytes(), r"nul\"),
    (b"tab\t", DEFAULT_VALUE.as_bytes(), r"tab\t"),
    (b"not\xff\xfeutf8", DEFAULT_VALUE.as_bytes(), "not"),
    (b"nested/host", DEFAULT_VALUE.as_bytes(), "nested/host"),
    (b"", DEFAULT_VALUE.as_bytes(), "/services/crate/"),
    (b"-Cfoo=bar", DEFAULT_VALUE.as_bytes(), "-Cfoo=bar"),
    (b".hidden", DEFAULT_VALUE.as_bytes(), ".hidden"),
    (b"comma,", DEFAULT_VALUE.as_bytes(), "comma,"),
    (b"space d", DEFAULT_VALUE.as_bytes(), "space d"),
    (b"dollar$(id)", DEFAULT_VALUE.as_bytes(), "dollar$(id)"),
    (b"value-empty", b"", "value-empty"),
    (b"value-text", b"up", "value-text"),
    (b"value-list", b"[4200,4300]", "value-list"),
    (b"value-utf8", b"\xff\xfe", "value-utf8"),
    (b"value-port-0", br#"{"http":4200,"transport":0}"#, "value-port-0"),
    (b"value-port-70000", br#"{"http":70000,"transport":4300}"#, "value-port-70000"),
    (b"value-address", br#"{"http":4200,"transport":4300,"address":"-Cfoo=bar"}"#, "value-address"),
    (b"value-address-lf", br#"{"http":4200,"transport":4300,"address":"a\nb"}"#, "value-address-lf"),
];

#[test]
fn junk_is_skipped_with_one_warning_each_and_the_others_count() {
    let etcd = three();
    let mut raw = Raw::connect(&etcd);
    for (rest, value, _) in JUNK {
        raw.put(&[PREFIX.as_bytes(), b"/", rest].concat(), value);
    }
    // Neighbours of the prefix are none of its business: no host, no warning.
    for neighbour in ["/services/crate", "/services/crate.meta/formed", "/services/crate2/h"] {
        raw.put(neighbour.as_bytes(), b"\x1b junk");
    }
    for (format, lines) in [("csv", 1), ("lines", 3), ("json", 1), ("env", 2)] {
        let finished = run(hosts(&etcd, &["--format", format, "--wait-for", "3", "--timeout", "5s"]));
        let warnings: Vec<&str> = finished.stderr.lines().filter(|line| line.contains(" WARN ")).collect();
        assert_eq!(warnings.len(), JUNK.len(), "{}", finished.stderr);
        for (_, _, shown) in JUNK {
            let naming = warnings.iter().filter(|line| message_of(line).contains(shown)).count();
            assert!(naming >= 1, "no warning names {shown:?}:\n{}", finished.stderr);
        }
        assert!(!finished.stderr.contains(|c: char| c.is_control() && c != '\n'), "{:?}", finished.stderr);
        let stdout = finished.printed();
        assert_eq!(stdout.lines().count(), lines, "{stdout}");
        assert!(!stdout.contains("foo") && !stdout.contains("value"), "{stdout}");
    }
    assert_eq!(printed(&etcd, &[]), "10.0.0.5:4300,a:4300,[2001:db8::1]:4301\n");
}

/// Twenty values of 1.4 MB are more than one gRPC message holds: they must not hide anybody.
#[test]
fn many_and_huge_values_hide_nobody() {
    let etcd = three();
    let mut raw = Raw::connect(&etcd);
    raw.put_all((0..10_000).map(|i| (key_of(&format!("many/{i}")), "x".to_owned())));
    let junk = vec![b'x'; 1_400_000];
    let valid = format!(r#"{{"http":4200,"transport":4300,"notes":"{}"}}"#, "x".repeat(1_400_000));
    for i in 0..20 {
        raw.put(key_of(&format!("big-{i:02}")).as_bytes(), if i == 7 { valid.as_bytes() } else { &junk });
    }
    let finished = run_within(hosts(&etcd, &["--timeout", "1m", "--wait-for", "4"]), 2 * PATIENCE);
    let warnings = finished.stderr.lines().filter(|line| line.contains(" WARN ")).count();
    assert_eq!(warnings, 101, "a hundred name a key, and one tells how many more there are");
    assert!(finished.stderr.contains("keys=9919"), "{}", finished.stderr);
    assert!(finished.stderr.len() < 50_000, "no warning quotes a huge value");
    assert_eq!(finished.printed(), "10.0.0.5:4300,a:4300,[2001:db8::1]:4301,big-07:4300\n");
}

/// What is kept of a list is bounded in bytes, and a part of it is no list.
#[test]
fn more_hosts_than_fit_into_memory_are_an_error() {
    let etcd = three();
    let name = |i| format!("node-{i:05}.{}", "x".repeat(40));
    Raw::connect(&etcd).put_all((0..15_000).map(|i| (key_of(&name(i)), DEFAULT_VALUE.to_owned())));
    let finished = run(hosts(&etcd, &[]));
    assert_eq!((finished.code, &*finished.stdout), (69, ""), "{}", finished.stderr);
    let said = "what is announced under the prefix takes more than 2621440 bytes of memory";
    assert!(finished.stderr.contains(said), "{}", finished.stderr);
}
