//! What the node is started with: its literal flags, its peers, its image.

use crate::{
    IMAGE, NODE, endpoints,
    host::{Host, UNIT_PATIENCE, reserve},
    key,
    support::{
        engine::{Network, run_docker},
        eventually, eventually_eq, key_of,
        observer::Observer,
    },
};

/// What stays the same in the flags of each start.
const FLAGS: [&str; 5] = [
    "-Ctransport.tcp.port=4300",
    "-Chttp.port=4200",
    "-Cdiscovery.seed_providers=srv",
    "-Cdiscovery.srv.query=_crate._tcp.crate.local",
    "-Cdiscovery.srv.resolver=127.0.0.1:5399",
];

#[test]
fn second_node_is_given_the_first_ones_address_and_the_first_none() {
    let network = Network::create();
    let (etcd, url) = network.etcd();
    let observer = Observer::start(&etcd);
    let _reserved = reserve(2);
    let masters = "CRATE_FLAGS=-Ccluster.initial_master_nodes=h1,h2 -Ccluster.name=tested";
    let h1 = Host::boot(&network, "h1", &[&endpoints(&url), masters]);
    let address = format!("CRATE_DISCOVERY_ADDRESS={0}\nCRATE_PUBLISH_HOST={0}", h1.address());
    h1.write_settings("1.env", &[&address]);
    h1.systemctl(&["start", NODE]);
    observer.next_put(&key(), 0, UNIT_PATIENCE);
    let h2 = Host::boot(&network, "h2", &[&endpoints(&url), masters]);
    h2.systemctl(&["start", NODE]);
    observer.next_put(&key_of("h2"), 0, UNIT_PATIENCE);

    let own = |name: &str, publish: &str| {
        [format!("-Cnode.name={name}"), format!("-Cnetwork.publish_host={publish}")]
    };
    let ours = ["-Ccluster.initial_master_nodes=h1,h2", "-Ccluster.name=tested"].map(str::to_owned);
    let fixed = FLAGS.map(str::to_owned);
    let peers = format!("-Cdiscovery.seed_hosts={}:4300", h1.address());
    assert_eq!(h1.node_flags(), [&own("h1", &h1.address())[..], &fixed, &ours].concat());
    assert_eq!(h2.node_flags(), [&own("h2", "h2")[..], &fixed, &[peers], &ours].concat());
    assert_eq!(h1.is_with(&["h1", "h2"]), h2.is_with(&["h1", "h2"]));

    // What docker was told, word for word; the limits are left out only after that.
    let run =
        h2.docker_calls().into_iter().find(|call| call.starts_with("run ")).expect("docker run was called");
    assert_eq!(
        run,
        format!(
            "run --name crate-1 --rm --pull=never --network host --log-driver none \
             --ulimit nofile=65536:65536 --ulimit nproc=4096:4096 --ulimit memlock=-1:-1 \
             --volume /var/lib/crate:/data --env-file /run/crate-1/docker.env crate:6.4.3 {}",
            h2.node_flags().join(" ")
        )
    );
}

#[test]
fn peers_that_the_sidekick_knew_last_are_those_of_a_start_while_etcd_is_away() {
    let network = Network::create();
    let (mut etcd, url) = network.etcd();
    etcd.etcdctl(&["put", &key_of("other"), r#"{"http":4200,"transport":4301}"#]);
    let host = Host::boot(&network, "h1", &[&endpoints(&url)]);
    host.systemctl(&["start", NODE]);
    let seeds = || host.node_flags().into_iter().find(|flag| flag.starts_with("-Cdiscovery.seed_hosts="));
    assert_eq!(seeds().as_deref(), Some("-Cdiscovery.seed_hosts=other:4301"));
    // One that came after the start counts, too.
    etcd.etcdctl(&["put", &key_of("later"), r#"{"http":4200,"transport":4302,"address":"2001:db8::1"}"#]);
    eventually("the sidekick knows all of them", UNIT_PATIENCE, || {
        match host.try_exec(&["cat", "/var/lib/crate-discovery/seeds.txt"]) {
            Ok(known) if known == "h1:4300\n[2001:db8::1]:4302\nother:4301" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    etcd.kill();
    host.systemctl(&["restart", NODE]);
    assert_eq!(host.starts(), 2);
    let all = "-Cdiscovery.seed_hosts=h1:4300,[2001:db8::1]:4302,other:4301";
    assert_eq!(seeds().as_deref(), Some(all));
    // What was in /run is gone after a power cut.
    host.systemctl(&["enable", NODE]);
    run_docker(&["kill", host.container().name()]);
    run_docker(&["start", host.container().name()]);
    eventually_eq("it has started again", UNIT_PATIENCE, &3, || host.starts());
    assert_eq!(seeds().as_deref(), Some(all));
}

#[test]
fn missing_image_is_pulled_until_it_is_there_and_never_again() {
    let network = Network::create();
    let (etcd, url) = network.etcd();
    let observer = Observer::start(&etcd);
    let host = Host::boot_without_image(&network, "h1", &[&endpoints(&url)]);
    host.systemctl(&["start", "--no-block", NODE]);
    let pulls = || {
        let calls = host.docker_calls();
        calls
            .iter()
            .filter(|call| *call == "create --name crate-image-1 --pull=missing --network none crate:6.4.3")
            .count()
    };
    // No registry can be reached: that fails, and is tried again.
    eventually("the image is pulled again", UNIT_PATIENCE, || {
        match host.try_exec(&["cat", "/var/log/docker-calls"]) {
            Ok(_) if pulls() >= 2 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    assert!(
        host.journal(IMAGE).contains("Unable to find image 'crate:6.4.3' locally"),
        "{}",
        host.journal(IMAGE)
    );
    host.load_image();
    observer.next_put(&key(), 0, UNIT_PATIENCE);
    // What only looked for the image is gone.
    assert_eq!(host.containers(), "crate-1");
    let complaints = |journal: &str| journal.matches("Unable to find image").count();
    let before = complaints(&host.journal(IMAGE));
    host.systemctl(&["restart", NODE]);
    assert_eq!(complaints(&host.journal(IMAGE)), before);
    assert_eq!(host.property(IMAGE, "Result"), "success");
}

#[test]
fn variable_that_is_unset_or_empty_leaves_the_images_own_and_one_that_is_set_wins() {
    let network = Network::create();
    let (_etcd, url) = network.etcd();
    let host = Host::boot(&network, "h1", &[&endpoints(&url)]);
    let in_the_container = || {
        let all =
            host.exec(&["docker.real", "inspect", "--format", "{{join .Config.Env \"\\n\"}}", "crate-1"]);
        all.lines()
            .filter(|line| line.starts_with("CRATE_HEAP_SIZE") || line.starts_with("CRATE_JAVA_OPTS"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let starts_with = |settings: &[&str], expected: &[&str]| {
        host.write_settings("1.env", settings);
        host.systemctl(&["restart", NODE]);
        eventually("the node answers", UNIT_PATIENCE, || {
            host.try_exec(&["docker.real", "exec", "crate-1", "curl", "--silent", "http://127.0.0.1:4200/"])
                .or_else(|error| if error.is_empty() { Ok(String::new()) } else { Err(error) })
        });
        assert_eq!(in_the_container(), expected, "{settings:?}");
    };
    starts_with(&[], &["CRATE_HEAP_SIZE=512M"]);
    starts_with(&["CRATE_HEAP_SIZE=", "CRATE_JAVA_OPTS="], &["CRATE_HEAP_SIZE=512M"]);
    let java = "CRATE_JAVA_OPTS=-Dcom.sun.management.jmxremote.port=7979 -Dx=$HOME";
    starts_with(&["CRATE_HEAP_SIZE=1g", java], &["CRATE_HEAP_SIZE=1g", java]);
}
