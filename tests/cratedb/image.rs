//! What the image has, and what its entrypoint does.

use crate::{
    node::Node,
    support::{
        engine::{Network, engine_answers, run_docker},
        eventually,
    },
};

#[test]
fn image_has_a_heap_size_of_its_own_and_takes_flags() {
    engine_answers();
    let network = Network::create();
    let node = Node::start(&network, "n1", &[]);
    let of = |format: &str| node.container.inspect(format);
    assert!(
        of("{{json .Config.Env}}").contains("\"CRATE_HEAP_SIZE=512M\""),
        "{}",
        of("{{json .Config.Env}}")
    );
    assert_eq!(of("{{json .Config.Entrypoint}}"), r#"["/docker-entrypoint.sh"]"#);
    // The first argument is a flag: the entrypoint put `crate` before it.
    node.says(503);
}

#[test]
fn node_is_not_root_and_its_data_is_under_nodes_0() {
    let network = Network::create();
    let node = Node::start(&network, "n1", &["-Ccluster.initial_master_nodes=n1"]);
    node.says(200);
    let nodes = node.data().join("data/nodes/0");
    assert!(nodes.is_dir(), "{:?}", std::fs::read_dir(node.data()).map(Iterator::collect::<Vec<_>>));
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(nodes).unwrap());
    assert_eq!(owner, 1000);
}

#[test]
fn root_may_not_run_it_past_the_entrypoint() {
    let network = Network::create();
    let node =
        Node::bare(&network, "n1", "6.4.3", &["--entrypoint", "/crate/bin/crate"], &["-Cnode.name=n1"]);
    assert_eq!(node.exit_code(), "1", "{}", node.container.logs());
}

#[test]
fn data_of_a_restarted_node_is_that_of_its_cluster() {
    let network = Network::create();
    let node = Node::start(&network, "n1", &["-Ccluster.initial_master_nodes=n1"]);
    let before = node.is_with(&["n1"]);
    run_docker(&["restart", node.container.name()]);
    eventually("it is in its cluster again", crate::node::PATIENCE, || match node.cluster() {
        Ok((uuid, _)) if uuid == before => Ok(()),
        other => Err(format!("{other:?}")),
    });
}
