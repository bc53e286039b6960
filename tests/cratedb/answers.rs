//! What `GET /` says, byte for byte.

use serde_json::Value;

use crate::{node::Node, support::engine::Network};

/// Status line, header lines and body.
fn parts(answer: &str) -> (Vec<&str>, &str) {
    let (head, body) = answer.split_once("\r\n\r\n").expect("it has a head");
    (head.split("\r\n").collect(), body)
}

/// Holds that a body is written as CrateDB writes it, and has these values.
#[track_caller]
fn is_written(body: &str, ok: bool, status: u16, name: &str) {
    let value: Value = serde_json::from_str(body).unwrap();
    let version = |key: &str| value["version"][key].as_str().unwrap().to_owned();
    let snapshot = value["version"]["build_snapshot"].as_bool().unwrap();
    assert_eq!(
        body,
        format!(
            "{{\n  \"ok\" : {ok},\n  \"status\" : {status},\n  \"name\" : \"{name}\",\n  \"cluster_name\" : \
             \"tried\",\n  \"version\" : {{\n    \"number\" : \"{}\",\n    \"build_hash\" : \"{}\",\n    \
             \"build_timestamp\" : \"{}\",\n    \"build_snapshot\" : {snapshot},\n    \"lucene_version\" : \
             \"{}\"\n  }}\n}}\n",
            version("number"),
            version("build_hash"),
            version("build_timestamp"),
            version("lucene_version"),
        )
    );
}

#[test]
fn without_a_master_it_says_503_and_who_it_is() {
    let network = Network::create();
    let flags = ["-Ccluster.name=tried", "-Cdiscovery.seed_hosts=n2"];
    let node = Node::start(&network, "n1", &flags);
    node.says(503);
    let answer = node.root("").unwrap();
    let (head, body) = parts(&answer);
    assert_eq!(
        head,
        [
            "HTTP/1.1 503 Service Unavailable",
            "content-type: application/json",
            &format!("content-length: {}", body.len())
        ]
    );
    is_written(body, false, 503, "n1");
}

#[test]
fn with_a_master_it_says_200() {
    let network = Network::create();
    let flags = ["-Ccluster.name=tried", "-Ccluster.initial_master_nodes=n1"];
    let node = Node::start(&network, "n1", &flags);
    node.says(200);
    let answer = node.root("").unwrap();
    let (head, body) = parts(&answer);
    assert_eq!(
        head,
        ["HTTP/1.1 200 OK", "content-type: application/json", &format!("content-length: {}", body.len())]
    );
    is_written(body, true, 200, "n1");
    let head = node.asked("HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    assert_eq!(head, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
}

#[test]
fn before_the_recovery_it_says_200_since_6_2_and_503_before_that() {
    let network = Network::create();
    // Its master is there, and two data nodes are missing.
    let flags = [
        "-Ccluster.initial_master_nodes=n1",
        "-Cgateway.expected_data_nodes=3",
        "-Cgateway.recover_after_data_nodes=2",
    ];
    for version in ["6.4.3", "5.10.16"] {
        let node = Node::start_with(&network, "n1", version, &[], &flags);
        node.has_said("elected-as-master");
        node.says(if is_before_6(&node) { 503 } else { 200 });
    }
}

/// Whether the version that a node says it has is older than 6.
pub fn is_before_6(node: &Node) -> bool {
    node.says_anything();
    let answer = node.root("").unwrap();
    let value: Value = serde_json::from_str(parts(&answer).1).unwrap();
    let number = value["version"]["number"].as_str().unwrap().to_owned();
    number.split('.').next().unwrap().parse::<u32>().unwrap() < 6
}

#[test]
fn host_that_no_line_admits_is_told_401_and_nothing_else() {
    let network = Network::create();
    let flags = [
        "-Cdiscovery.seed_hosts=n2",
        "-Cauth.host_based.enabled=true",
        "-Cauth.host_based.config.0.user=somebody",
        "-Cauth.host_based.config.0.method=password",
    ];
    let node = Node::start(&network, "n1", &flags);
    node.says(401);
    let answer = node.root("").unwrap();
    let asker = answer.split("host \"").nth(1).unwrap().split('"').next().unwrap();
    let body = format!(
        "No valid auth.host_based.config entry found for host \"{asker}\", user \"crate\", protocol \"http\". Did \
         you enable TLS in your client?\n"
    );
    assert_eq!(
        answer,
        format!(
            "HTTP/1.1 401 Unauthorized\r\ncontent-length: {}\r\nwww-authenticate: Basic realm=\"CrateDB \
             Authenticator\"\r\n\r\n{body}",
            body.len()
        )
    );
}

#[test]
fn password_that_is_wrong_or_missing_is_told_401() {
    let network = Network::create();
    let flags = [
        "-Cdiscovery.seed_hosts=n2",
        "-Cauth.host_based.enabled=true",
        "-Cauth.host_based.config.0.method=password",
    ];
    let node = Node::start(&network, "n1", &flags);
    node.says(401);
    // probe:wrong
    let answer = node.root("Authorization: Basic cHJvYmU6d3Jvbmc=\r\n").unwrap();
    assert!(answer.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{answer}");
    assert!(answer.ends_with("password authentication failed for user \"probe\"\n"), "{answer}");
}
