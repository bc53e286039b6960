//! The first sidekick whose node has a master says so, and from then on nobody is to elect.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use rustix::process::Signal;

use crate::{
    STORED, ask,
    support::{
        AT_ONCE, DEFAULT_VALUE, PATIENCE, SLACK,
        daemon::{Daemon, announce, run},
        etcd::Etcd,
        eventually, eventually_eq, key_of, stays,
    },
};

/// A node's HTTP port, answering with the status that it is told to. Its thread ends with the process.
struct Node {
    status: Arc<AtomicU16>,
    asked: Arc<AtomicU16>,
    url: String,
}

impl Node {
    fn answering(status: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let status = Arc::new(AtomicU16::new(status));
        let told = Arc::clone(&status);
        let asked = Arc::new(AtomicU16::new(0));
        let count = Arc::clone(&asked);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.read(&mut [0; 1024]);
                let status = told.load(Ordering::Relaxed);
                let _ = write!(stream, "HTTP/1.1 {status} Whatever\r\nContent-Length: 0\r\n\r\n");
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { status, asked, url }
    }

    /// Waits until the gate and whoever looks for 200 have both had an answer again.
    fn is_asked_again(&self) {
        let before = self.asked.load(Ordering::Relaxed);
        eventually("it is asked again", PATIENCE, || match self.asked.load(Ordering::Relaxed) {
            now if now >= before + 4 => Ok(()),
            now => Err(format!("{} times", now - before)),
        });
    }

    fn answer(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }

    fn checks(&self) -> [&str; 4] {
        ["--check", &self.url, "--check-interval", "100ms"]
    }
}

fn formed(etcd: &Etcd) -> Option<String> {
    etcd.key(&format!("{STORED}formed")).map(|key| key.value)
}

#[test]
fn cluster_has_formed_when_a_node_answers_200_and_not_before() {
    let etcd = Etcd::start();
    assert_eq!(run(ask(&etcd, "a", 1, &[])).printed(), "a\n");
    let node = Node::answering(503);
    let _daemon = Daemon::announced(&etcd, "h1", &node.checks());
    stays("not formed", Duration::from_secs(1), &None, || formed(&etcd));
    assert_eq!(run(ask(&etcd, "b", 1, &[])).printed(), "a\n");
    for other in [204, 301, 401, 500] {
        node.answer(other);
        node.is_asked_again();
        stays("not formed", Duration::from_millis(300), &None, || formed(&etcd));
    }

    node.answer(200);
    eventually_eq("formed", AT_ONCE + SLACK, &Some("h1".to_owned()), || formed(&etcd));
    for wiped in ["a", "b"] {
        assert_eq!(run(ask(&etcd, wiped, 1, &["--format", "env"])).printed(), "CRATE_BOOTSTRAP_FLAGS=\n");
    }
}

#[test]
fn cluster_that_formed_without_a_list_has_formed_too() {
    let etcd = Etcd::start();
    let node = Node::answering(200);
    let mut h1 = Daemon::announced(&etcd, "h1", &node.checks());
    eventually_eq("formed", AT_ONCE + SLACK, &Some("h1".to_owned()), || formed(&etcd));
    // All of it is down, and two of its nodes are wiped: they must not elect a second one.
    assert_eq!(h1.end(Signal::TERM, PATIENCE), 0);
    let finished = run(ask(&etcd, "a", 1, &[]));
    assert_eq!((finished.code, finished.stdout.as_str()), (0, ""), "{}", finished.stderr);
    assert!(
        finished.stderr.contains("the cluster has formed, as the sidekick of h1 saw"),
        "{}",
        finished.stderr
    );
}

#[test]
fn first_to_say_it_is_the_only_one() {
    let etcd = Etcd::start();
    let node = Node::answering(200);
    let _h1 = Daemon::announced(&etcd, "h1", &node.checks());
    eventually_eq("formed", AT_ONCE + SLACK, &Some("h1".to_owned()), || formed(&etcd));
    let before = etcd.key(&format!("{STORED}formed"));
    let _h2 = Daemon::announced(&etcd, "h2", &node.checks());
    stays("put once", Duration::from_secs(1), &before, || etcd.key(&format!("{STORED}formed")));
}

#[test]
fn announcer_without_an_http_check_says_nothing() {
    let etcd = Etcd::start();
    let node = Node::answering(200);
    let tcp = node.url.replace("http", "tcp");
    let _daemon = Daemon::announced(&etcd, "h1", &["--check", tcp.trim_end_matches('/')]);
    stays("nothing is said", Duration::from_secs(1), &None, || formed(&etcd));
}

#[test]
fn announcer_that_may_not_say_it_announces_as_ever() {
    let mut etcd = Etcd::start();
    let own = key_of("h1");
    etcd.enable_auth(&[(
        "h1",
        "secret",
        &[&["readwrite", &own], &["--prefix=true", "read", "/services/crate/"]],
    )]);
    let node = Node::answering(200);
    let mut command = announce(&etcd, "h1", &node.checks());
    command.env("ETCDCTL_USER", "h1:secret");
    let mut daemon = Daemon::spawn(command);
    daemon.says("announced", PATIENCE);
    daemon.says("cannot say that the cluster has formed", PATIENCE);
    let before = etcd.key(&own).unwrap();
    assert_eq!(before.value, DEFAULT_VALUE);
    // Longer than its TTL.
    stays("announced", Duration::from_secs(7), &Some(before), || etcd.key(&own));
    assert_eq!(daemon.lines("cannot say that the cluster has formed").len(), 1, "{}", daemon.stderr());
    assert_eq!(daemon.stderr().matches(" WARN ").count(), 1, "{}", daemon.stderr());
    assert_eq!(daemon.end(Signal::TERM, PATIENCE), 0);
    assert_eq!(etcd.key(&own), None);
}
