//! Whatever the environment holds, bytes that are no text among them: taken, or rejected in words.

use std::{ffi::OsString, os::unix::ffi::OsStringExt};

use proptest::prelude::*;

use crate::support::daemon::{run, tool};

/// All but the endpoints, whose parser has a test of its own: a random one may be somebody's.
const VARIABLES: [&str; 10] = [
    "ETCDCTL_CACERT",
    "ETCDCTL_CERT",
    "ETCDCTL_KEY",
    "ETCDCTL_USER",
    "ETCDCTL_PASSWORD",
    "CREDENTIALS_DIRECTORY",
    "CRATE_DISCOVERY_HOST",
    "CRATE_DISCOVERY_PREFIX",
    "CRATE_DISCOVERY_LOG",
    "CRATE_DISCOVERY_PASSWORD_FILE",
];

/// Text, or any bytes: an environment holds no NUL, and no more.
fn value() -> impl Strategy<Value = OsString> {
    prop_oneof![
        "[^\0]{0,40}".prop_map(OsString::from),
        proptest::collection::vec(1u8.., 0..40).prop_map(OsString::from_vec),
    ]
}

proptest! {
    // Each case is a process.
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_environment_is_taken_or_rejected_in_words(
        variables in proptest::collection::vec((0..VARIABLES.len(), value()), 0..5),
        own in any::<bool>(),
    ) {
        let mut command = tool();
        command.args(if own { &["status", "--self"][..] } else { &["hosts"] });
        command.env("ETCDCTL_ENDPOINTS", "http://127.0.0.1:1");
        command.envs(variables.into_iter().map(|(number, value)| (VARIABLES[number], value)));
        let finished = run(command);
        // Nobody listens there: the health check says 0 to that, when it is not rejected before.
        prop_assert!([0, 2, 69, 78].contains(&finished.code), "{}: {}", finished.code, finished.stderr);
        prop_assert!(finished.code != 0 || own);
        prop_assert!(finished.code == 0 || finished.stderr.contains("error: "), "{}", finished.stderr);
        prop_assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
        prop_assert_eq!(finished.stdout, "");
    }
}
