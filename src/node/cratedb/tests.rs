use proptest::prelude::*;

use super::*;

/// The body of CrateDB 6.4.3, byte for byte except the hash of the build.
fn body(status: u16) -> String {
    format!(
        "{{\n  \"ok\" : {},\n  \"status\" : {status},\n  \"name\" : \"crate1\",\n  \"cluster_name\" : \"crate\",\n  \
         \"version\" : {{\n    \"number\" : \"6.4.3\",\n    \"build_hash\" : \"d3b321c9b0d5a5ce0ab3ee6f2c5d1e0f1c7cf9a3\",\n    \
         \"build_timestamp\" : \"NA\",\n    \"build_snapshot\" : false,\n    \"lucene_version\" : \"10.4.0\"\n  }}\n}}\n",
        status == 200
    )
}

fn answer(status: u16, body: &str) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status} Whatever\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body.as_bytes()].concat()
}

fn locked() -> Vec<u8> {
    let body = "No valid auth.host_based.config entry found for host \"127.0.0.1\", user \"crate\", protocol \"http\"\n";
    format!(
        "HTTP/1.1 401 Unauthorized\r\ncontent-length: {}\r\n\
         www-authenticate: Basic realm=\"CrateDB Authenticator\"\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn known(has_master: bool) -> Told {
    let (name, cluster, version) = ("crate1".to_owned(), "crate".to_owned(), "6.4.3".to_owned());
    Told::Known(Identity { name, cluster, version, has_master })
}

/// Why an answer that has ended is bad.
fn reason(answer: &[u8]) -> String {
    judge(answer, true).unwrap().unwrap_err()
}

#[test]
fn what_cratedb_says_is_good_as_soon_as_it_is_whole() {
    let good = [
        (answer(503, &body(503)), known(false)),
        (answer(200, &body(200)), known(true)),
        (locked(), Told::Locked),
    ];
    for (answer, told) in good {
        for ended in [false, true] {
            assert_eq!(judge(&answer, ended), Some(Ok(told.clone())));
        }
        let needed = match told {
            Told::Locked => answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4,
            _ => answer.len(),
        };
        for length in 0..needed {
            assert_eq!(judge(&answer[..length], false), None, "{length} of {needed} bytes");
            assert!(judge(&answer[..length], true).unwrap().is_err(), "{length} of {needed} bytes");
        }
    }
}

/// From 4.0 to 5.10.1, the JSON of a 503 contains the status 200.
#[test]
fn status_in_the_json_is_not_believed() {
    let lie = body(503).replace("\"status\" : 503", "\"status\" : 200");
    assert_eq!(judge(&answer(503, &lie), true), Some(Ok(known(false))));
}

#[test]
fn answer_without_a_length_ends_with_the_connection() {
    let answer = format!("HTTP/1.1 200 OK\r\n\r\n{}", body(200));
    assert_eq!(judge(answer.as_bytes(), false), None);
    assert_eq!(judge(answer.as_bytes(), true), Some(Ok(known(true))));
}

#[test]
fn a_status_that_is_not_cratedbs_is_named() {
    for status in [100, 204, 301, 400, 403, 404, 500, 502] {
        let expected =
            format!("answered {status}, which is not CrateDB's word for a node that can be joined");
        assert_eq!(reason(&answer(status, &body(200))), expected);
        assert_eq!(judge(&answer(status, ""), false), Some(Err(expected)), "at once");
    }
    let foreign = "it is no CrateDB: answered 401, but not as CrateDB's authenticator";
    assert_eq!(reason(&answer(401, "")), foreign);
    let realm = b"HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Basic realm=\"Prometheus\"\r\n\r\n";
    assert_eq!(reason(realm), foreign);
}

#[test]
fn json_of_another_program_is_none_of_cratedb() {
    let metrics = "# HELP up Whether it is up.\n# TYPE up gauge\nup 1\n";
    let elasticsearch = r#"{"name":"crate1","cluster_name":"crate","cluster_uuid":"x","version":{"number":"8.1.0"},"tagline":"You Know, for Search"}"#;
    let elasticsearch_0_90 = r#"{"ok":true,"status":200,"name":"crate1","version":{"number":"0.90.13"},"tagline":"You Know, for Search"}"#;
    let array = r#"[true,200,"crate1","crate",{"number":"6.4.3"}]"#;
    let mut foreign: Vec<String> =
        ["", "{}", "null", "true", metrics, elasticsearch, elasticsearch_0_90, array]
            .map(str::to_owned)
            .into();
    for (from, to) in [
        ("\"ok\" : true", "\"ok\" : 1"),
        ("\"ok\" : true", "\"ok\" : false"),
        ("\"ok\" : true,", ""),
        ("\"status\" : 200", "\"status\" : \"200\""),
        ("\"name\" : \"crate1\"", "\"name\" : null"),
        ("\"cluster_name\" : \"crate\"", "\"cluster_name\" : 1"),
        ("\"number\" : \"6.4.3\"", "\"number\" : 6"),
        ("\"version\"", "\"versions\""),
        ("}\n}\n", "}\n"),
        ("}\n}\n", "}\n}\nmore"),
    ] {
        let changed = body(200).replace(from, to);
        assert_ne!(changed, body(200), "{from}");
        foreign.push(changed);
    }
    for body in foreign {
        let expected = "it is no CrateDB: what it answered with 200 is not CrateDB's";
        assert_eq!(reason(&answer(200, &body)), expected, "{body}");
    }
    assert_eq!(
        reason(&answer(503, &body(200))),
        "it is no CrateDB: what it answered with 503 is not CrateDB's",
        "no master, and ok"
    );
}

#[test]
fn other_protocols_are_named() {
    let tls = "it speaks TLS: use crate+https://";
    assert_eq!(reason(b"\x15\x03\x01\x00\x02\x02\x46"), tls);
    assert_eq!(judge(b"\x16\x03", false), Some(Err(tls.to_owned())));
    assert_eq!(judge(b"\x16", false), None);
    for other in [&b"SSH-2.0-OpenSSH_9.2\r\n"[..], b"\x16", b"\x16\x04", b"HTTP/2 200\r\n\r\n", b"\xff"] {
        assert_eq!(reason(other), "it is no CrateDB: it speaks no HTTP");
    }
    assert_eq!(reason(b""), "closed without an answer");
    assert_eq!(reason(b"HTTP/1.1 2"), "closed in the middle of its answer");
}

#[test]
fn an_answer_without_an_end_is_bounded() {
    let long = "its answer is longer than 64 KiB";
    let spaces = " ".repeat(LONGEST);
    let announced = format!("HTTP/1.1 200 OK\r\ncontent-length: {LONGEST}\r\n\r\n");
    assert_eq!(judge(announced.as_bytes(), false), Some(Err(long.to_owned())));
    for endless in [format!("HTTP/1.1 200 OK\r\n\r\n{spaces}"), format!("HTTP/1.1 200 OK\r\na: {spaces}")] {
        assert_eq!(judge(&endless.as_bytes()[..LONGEST - 1], false), None);
        assert_eq!(judge(&endless.as_bytes()[..LONGEST], false), Some(Err(long.to_owned())));
    }
    for length in ["-1", "+5", "x", "", "99999999999999999999999", "5\r\ncontent-length: 6"] {
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{}", body(200));
        assert!(judge(answer.as_bytes(), false).unwrap().is_err(), "{length:?}");
    }
    let text = "x".repeat(1000);
    let long = body(200)
        .replace("crate1", &text)
        .replace("6.4.3", &text)
        .replace("\"crate\"", &format!("\"{text}\""));
    let Some(Ok(Told::Known(node))) = judge(&answer(200, &long), true) else { panic!("no node") };
    for text in [node.name, node.cluster, node.version] {
        assert_eq!(text.chars().count(), 201, "200 and an ellipsis");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_judged_and_nobody_but_cratedb_is_known(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for bytes in [bytes.clone(), [b"HTTP/1.1 200 OK\r\n", &bytes[..]].concat(), [b"HTTP/1.1 503 X\r\n\r\n", &bytes[..]].concat()] {
            prop_assert!(judge(&bytes, true).expect("it has ended").is_err());
            prop_assert!(judge(&bytes, false).is_none_or(|judged| judged.is_err()));
        }
    }

    #[test]
    fn one_wrong_byte_is_judged_too(at in 0usize..500, byte in any::<u8>(), status in prop_oneof![Just(200u16), Just(503)]) {
        let mut bytes = answer(status, &body(status));
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(told) = judge(&bytes, true).expect("it has ended") {
            prop_assert!(!matches!(told, Told::Nothing | Told::Locked));
        }
    }

    #[test]
    fn more_bytes_change_no_judgement(cut in 0usize..600, status in 0u16..600) {
        let bytes = answer(status, &body(status));
        let cut = cut.min(bytes.len());
        if let Some(early) = judge(&bytes[..cut], false) {
            prop_assert_eq!(Some(early), judge(&bytes, false));
        }
    }
}
