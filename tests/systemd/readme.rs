//! The README's way in, copied as it is.

use std::{fs, path::Path};

use crate::{
    formation::{NAMES, one_cluster},
    host::{Host, UNIT_PATIENCE, reserve},
    support::{engine::Network, eventually_eq},
};

/// The first fenced block of our documents in which all of these stand.
#[track_caller]
fn block(words: &[&str]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![root.join("README.md")];
    pages.extend(fs::read_dir(root.join("docs")).into_iter().flatten().flatten().map(|entry| entry.path()));
    for page in pages.iter().filter(|page| page.extension().is_some_and(|end| end == "md")) {
        let text = fs::read_to_string(page).unwrap();
        let found =
            text.split("```").skip(1).step_by(2).find(|block| words.iter().all(|word| block.contains(word)));
        if let Some((_, lines)) = found.and_then(|block| block.split_once('\n')) {
            return lines.to_owned();
        }
    }
    panic!("no block has {words:?}");
}

#[test]
fn its_commands_and_its_settings_make_one_cluster_of_three_out_of_nothing() {
    let commands = block(&["make install", "systemd-sysusers", "systemctl enable --now --no-block crate@1"]);
    let settings = block(&["ETCDCTL_ENDPOINTS=http://10.0.0.1:2379,", "CRATE_BOOTSTRAP_EXPECT=3"]);
    let network = Network::create();
    let _reserved = reserve(3);
    let hosts = NAMES.map(|name| Host::boot_as_installed(&network, name));
    hosts.iter().for_each(Host::load_image);
    // Its addresses are 10.0.0.1 to 10.0.0.3, of host and etcd; ours are what the network gave.
    let addresses = hosts.each_ref().map(Host::address);
    let here = |text: &str, own: usize| {
        let mut text = text.to_owned();
        for (number, address) in addresses.iter().enumerate() {
            text = text.replace(&format!("http://10.0.0.{}:", number + 1), &format!("http://{address}:"));
        }
        text.replace("=10.0.0.1\n", &format!("={}\n", addresses[own]))
    };
    for (own, host) in hosts.iter().enumerate() {
        let members: Vec<String> =
            NAMES.iter().zip(&addresses).map(|(name, at)| format!("{name}=http://{at}:2380")).collect();
        let at = &addresses[own];
        host.write(
            "/etc/default/etcd",
            &format!(
                "ETCD_NAME={}\nETCD_INITIAL_CLUSTER={}\nETCD_INITIAL_ADVERTISE_PEER_URLS=http://{at}:2380\n\
                 ETCD_LISTEN_PEER_URLS=http://{at}:2380\nETCD_LISTEN_CLIENT_URLS=http://{at}:2379\n\
                 ETCD_ADVERTISE_CLIENT_URLS=http://{at}:2379\n",
                NAMES[own],
                members.join(",")
            ),
        );
        host.systemctl(&["start", "--no-block", "etcd"]);
    }
    for (own, host) in hosts.iter().enumerate() {
        host.write("/root/settings", &here(&settings, own));
        // `make install` was run, no limit can be raised here, and a test has no editor.
        let edited = "sh -c 'cat /root/settings >>\"$0\"'";
        let commands = commands.replace("make install", "true").replace("sysctl --system", "true");
        let commands = commands.replace("editor ", &format!("{edited} "));
        host.exec(&["sh", "-e", "-c", &commands]);
    }
    one_cluster(&hosts);
    // On any host.
    let list = || {
        let program =
            ["env", &format!("ETCDCTL_ENDPOINTS=http://{}:2379", addresses[1]), "crate-discovery", "hosts"];
        hosts[0].exec(&program)
    };
    let all: Vec<String> = addresses.iter().map(|address| format!("{address}:4300")).collect();
    eventually_eq("all three are announced", UNIT_PATIENCE, &all.join(","), list);
}
