//! What only the stand-in can be told to do, and that it does it. `make test-cratedb` leaves these out.

use std::{fs, process::Command, time::Duration};

use crate::{
    node::Node,
    support::{
        crate_db::{CrateDb, VARIABLE},
        engine::Network,
        eventually,
    },
};

/// Writes the words that steer a node before it starts, or while it runs.
fn steer(node: &Node, words: &str) {
    fs::write(node.data().join("stand-in"), words).unwrap();
}

#[test]
fn image_that_cannot_be_had_fails_each_test_with_that_sentence() {
    let image = "localhost:1/no-such-image:none";
    let failed = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "starts::sigterm_ends_it_with_143"])
        .env(VARIABLE, image)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&failed.stdout);
    assert!(!failed.status.success(), "{said}");
    assert!(said.contains(&format!("the image {image} of CrateDB cannot be had here: ")), "{said}");
}

#[test]
fn map_count_that_is_too_low_ends_it_with_78() {
    CrateDb::is_the_stand_in();
    let network = Network::create();
    let node = Node::start_with(&network, "n1", "6.4.3", &["--env", "STAND_IN_MAX_MAP_COUNT=65530"], &[]);
    assert_eq!(node.exit_code(), "78", "{}", node.container.logs());
    assert!(
        node.container.logs().contains("vm.max_map_count [65530] is too low"),
        "{}",
        node.container.logs()
    );
}

#[test]
fn limits_that_docker_was_not_asked_for_are_linuxs_own() {
    CrateDb::is_the_stand_in();
    let network = Network::create();
    let node = Node::bare(&network, "n1", "6.4.3", &["--env", "STAND_IN_ULIMITS="], &["-Cnode.name=n1"]);
    assert_eq!(node.exit_code(), "78", "{}", node.container.logs());
    assert!(node.container.logs().contains("crate process [4096] is too low"), "{}", node.container.logs());
}

/// A real one does this for 150 ms; half a second of it, before a check ends the node, is easier to see.
#[test]
fn before_its_coordinator_starts_it_says_400_in_the_words_of_a_null_pointer() {
    CrateDb::is_the_stand_in();
    let network = Network::create();
    let node = Node::start_with(&network, "n1", "6.4.3", &["--env", "CRATE_HEAP_SIZE"], &[]);
    let answer = eventually("it answers", Duration::from_secs(20), || match node.root("") {
        Ok(answer) if !answer.is_empty() => Ok(answer),
        other => Err(format!("{other:?}")),
    });
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    assert!(answer.contains("\r\n\r\njava.lang.NullPointerException"), "{answer}");
}

#[test]
fn password_of_a_user_is_let_in() {
    CrateDb::is_the_stand_in();
    let network = Network::create();
    let flags = [
        "-Cdiscovery.seed_hosts=n2",
        "-Cauth.host_based.enabled=true",
        "-Cauth.host_based.config.0.method=password",
    ];
    let node = Node::start(&network, "n1", &flags);
    steer(&node, "user=probe:secret");
    node.says(401);
    // probe:secret, and probe:wrong
    // Who may ask is asked before there is anything to answer.
    eventually("it has no master yet", Duration::from_secs(20), || {
        match node.root("Authorization: Basic cHJvYmU6c2VjcmV0\r\n") {
            Ok(right) if right.starts_with("HTTP/1.1 503 ") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let wrong = node.root("Authorization: Basic cHJvYmU6d3Jvbmc=\r\n").unwrap();
    assert!(wrong.starts_with("HTTP/1.1 401 "), "{wrong}");
}

#[test]
fn node_that_hangs_accepts_and_says_nothing() {
    CrateDb::is_the_stand_in();
    let network = Network::create();
    let node = Node::start(&network, "n1", &["-Ccluster.initial_master_nodes=n1"]);
    node.says(200);
    steer(&node, "hang");
    let error = node.root("").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}");
}
