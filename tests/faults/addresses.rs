//! Row 29: one name, several addresses, some of them dead. TLS checks the name and the request names it, whichever
//! address was dialled.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::Command,
    sync::{Arc, mpsc},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::runtime::Builder;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

use crate::support::{
    AT_ONCE, DEFAULT_VALUE, PATIENCE, Pki, SLACK, TTL,
    daemon::{Daemon, run_within},
    etcd::{Etcd, arg, scratch},
    free_port, key_of,
    net::{NameService, SilentPort},
    proxy::{Mode, Proxy},
};

/// How an address is dead.
#[derive(Clone, Copy, Debug)]
enum Dead {
    /// Packets vanish: no SYN is answered.
    Silent,
    /// Nobody listens.
    Refusing,
    /// Connections are accepted, and nothing is said.
    Frozen,
}

const WAYS: [Dead; 3] = [Dead::Silent, Dead::Refusing, Dead::Frozen];

/// So many addresses. The system gives the ones nearest to its own first (RFC 6724, rule 9); the last one is far away.
fn addresses(count: u8) -> Vec<Ipv4Addr> {
    let near = (1..count).map(|last| Ipv4Addr::new(127, 0, 0, last));
    near.chain([Ipv4Addr::new(127, 64, 0, count)]).collect()
}

/// A name whose last address alone is etcd's, and what keeps the others dead.
struct Place {
    names: NameService,
    port: u16,
    _good: Proxy,
    _silent: Vec<SilentPort>,
    _frozen: Vec<TcpListener>,
}

impl Place {
    fn start(etcd: &Etcd, dead: Dead, count: u8) -> Self {
        let (port, all) = (free_port(), addresses(count));
        let (good, others) = all.split_last().unwrap();
        let (mut silent, mut frozen) = (Vec::new(), Vec::new());
        for &other in others {
            match dead {
                Dead::Silent => silent.push(SilentPort::start(other, port)),
                Dead::Frozen => frozen.push(TcpListener::bind((other, port)).unwrap()),
                Dead::Refusing => {}
            }
        }
        Self {
            names: NameService::start(&all, Duration::ZERO),
            port,
            _good: Proxy::start_at(*good, port, etcd.port()),
            _silent: silent,
            _frozen: frozen,
        }
    }

    fn tool(&self, etcd: &Etcd, verb: &str) -> Command {
        tool(&self.names, self.port, etcd, verb)
    }
}

/// A verb on the etcd that has this name, at `port`.
fn tool(names: &NameService, port: u16, etcd: &Etcd, verb: &str) -> Command {
    let mut command = names.tool();
    let scheme = if etcd.url().starts_with("https") { "https" } else { "http" };
    command.args([verb, "--endpoints", &format!("{scheme}://{}:{port}", NameService::NAME)]);
    if scheme == "https" {
        let Pki { ca, cert, key } = etcd.pki();
        command.args(["--cacert", arg(ca), "--cert", arg(cert), "--key", arg(key)]);
    }
    command
}

fn is_announced_beside_dead_addresses(etcd: &Etcd) {
    let cases: Vec<(Dead, u8)> = WAYS.iter().flat_map(|&dead| [(dead, 2), (dead, 16)]).collect();
    let mut running: Vec<_> = cases
        .into_iter()
        .enumerate()
        .map(|(i, (dead, count))| {
            let place = Place::start(etcd, dead, count);
            let mut command = place.tool(etcd, "announce");
            command.args(["--host", &format!("h{i}"), "--ttl", &format!("{}s", TTL.as_secs())]);
            (dead, count, place, Instant::now(), Daemon::spawn(command))
        })
        .collect();
    for (dead, count, _, start, daemon) in &mut running {
        daemon.says("announced", PATIENCE);
        println!("{count} addresses, {dead:?}: announced after {} ms at most", start.elapsed().as_millis());
    }
    for (i, (_, _, place, _, daemon)) in running.iter_mut().enumerate() {
        let said = daemon.says("endpoint left", PATIENCE);
        let first = format!("{}:{} (127.0.0.1)", NameService::NAME, place.port);
        assert!(said.contains(&first), "the address that was left is named: {said}");
        assert_eq!(daemon.end(Signal::TERM, AT_ONCE + SLACK), 0);
        assert_eq!(etcd.key(&key_of(&format!("h{i}"))), None);
    }
}

#[test]
fn name_is_announced_through_its_one_good_address_over_http() {
    is_announced_beside_dead_addresses(&Etcd::start());
}

#[test]
fn name_is_announced_through_its_one_good_address_over_https() {
    is_announced_beside_dead_addresses(&Etcd::start_with_tls(&[]));
}

/// All addresses serve, and then half of them do not, the one in use among them.
fn is_kept_when_addresses_die(etcd: &Etcd) {
    // A round over sixteen is half of it, and a busy machine may take a second or two more.
    let ttl = Duration::from_secs(15);
    let cases: Vec<(Mode, u8)> =
        [Mode::Vanish, Mode::Cut, Mode::Stall].iter().flat_map(|&mode| [(mode, 2), (mode, 16)]).collect();
    let mut running: Vec<_> = cases
        .into_iter()
        .enumerate()
        .map(|(i, (mode, count))| {
            let port = free_port();
            let all = addresses(count);
            let proxies: Vec<_> = all.iter().map(|&ip| Proxy::start_at(ip, port, etcd.port())).collect();
            let names = NameService::start(&all, Duration::ZERO);
            let mut command = tool(&names, port, etcd, "announce");
            command.args(["--host", &format!("h{i}"), "--ttl", &format!("{}s", ttl.as_secs())]);
            (mode, proxies, names, Daemon::spawn(command))
        })
        .collect();
    for (_, proxies, _, daemon) in &mut running {
        daemon.says("announced", PATIENCE);
        assert!(proxies[0].open() > 0, "the nearest address is taken");
    }
    let keys = || (0..running.len()).map(|i| etcd.key(&key_of(&format!("h{i}")))).collect::<Vec<_>>();
    let before = keys();
    for (mode, proxies, ..) in &running {
        for proxy in &proxies[..proxies.len() / 2] {
            proxy.set(*mode);
        }
    }
    sleep(ttl + 2 * SLACK);
    // One that had been missing would be there under another revision.
    let after = keys();
    for (i, (mode, proxies, _, daemon)) in running.iter_mut().enumerate() {
        assert!(before[i].is_some());
        assert_eq!(after[i], before[i], "{mode:?} of {}: {}", proxies.len(), daemon.stderr());
        assert!(!daemon.lines("endpoint left").is_empty(), "{mode:?}");
        assert_eq!(daemon.end(Signal::TERM, AT_ONCE + SLACK), 0);
    }
}

#[test]
fn key_is_never_missing_when_addresses_of_the_name_die_later_over_http() {
    is_kept_when_addresses_die(&Etcd::start());
}

#[test]
fn key_is_never_missing_when_addresses_of_the_name_die_later_over_https() {
    is_kept_when_addresses_die(&Etcd::start_with_tls(&[]));
}

/// One silent address costs one attempt, here as long as the request timeout.
#[test]
fn one_shot_verbs_reach_the_good_address() {
    for etcd in [Etcd::start(), Etcd::start_with_tls(&[])] {
        etcd.etcdctl(&["put", &key_of("h1"), DEFAULT_VALUE]);
        for dead in WAYS {
            let place = Place::start(&etcd, dead, 2);
            let mut hosts = place.tool(&etcd, "hosts");
            hosts.args(["--request-timeout", "1s"]);
            assert_eq!(run_within(hosts, PATIENCE).printed(), "h1:4300\n", "{dead:?}");
            let mut status = place.tool(&etcd, "status");
            status.args(["--request-timeout", "1s", "--host", "h1"]);
            assert_eq!(run_within(status, PATIENCE).code, 0, "{dead:?}");
            let mut bootstrap = place.tool(&etcd, "bootstrap");
            bootstrap.args(["--request-timeout", "1s", "--prefix", &format!("/{dead:?}")]);
            bootstrap.args(["--expect", "1", "--node-name", "crate1", "--hold", "1s", "--wait"]);
            assert_eq!(run_within(bootstrap, PATIENCE).printed(), "crate1\n", "{dead:?}");
        }
    }
}

/// A server that says nothing, and what it was asked: the name in the TLS handshake, and the request's `:authority`.
struct Recorder {
    port: u16,
    asked: mpsc::Receiver<(Option<String>, String)>,
    _files: TempDir,
    ca: PathBuf,
}

impl Recorder {
    fn start(tls: bool) -> Self {
        let files = scratch();
        let pki = Pki::create(files.path());
        let acceptor = tls.then(|| {
            let chain = CertificateDer::pem_slice_iter(&fs::read(&pki.cert).unwrap())
                .collect::<Result<Vec<_>, _>>()
                .unwrap();
            let key = PrivateKeyDer::from_pem_slice(&fs::read(&pki.key).unwrap()).unwrap();
            let mut config =
                ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
            config.alpn_protocols = vec![b"h2".to_vec()];
            TlsAcceptor::from(Arc::new(config))
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())).unwrap();
        let port = listener.local_addr().unwrap().port();
        listener.set_nonblocking(true).unwrap();
        let (told, asked) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            // Ends with the process, or as soon as nobody listens.
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    let first = match &acceptor {
                        None => first_authority(stream).await.map(|authority| (None, authority)),
                        Some(acceptor) => match acceptor.accept(stream).await {
                            Ok(stream) => {
                                let name = stream.get_ref().1.server_name().map(str::to_owned);
                                first_authority(stream).await.map(|authority| (name, authority))
                            }
                            Err(error) => panic!("{error}"),
                        },
                    };
                    if first.is_none_or(|first| told.send(first).is_err()) {
                        return;
                    }
                }
            });
        });
        Self { port, asked, ca: pki.ca, _files: files }
    }
}

async fn first_authority(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
) -> Option<String> {
    let mut connection = h2::server::handshake(stream).await.ok()?;
    let (request, _) = connection.accept().await?.ok()?;
    Some(request.uri().authority()?.to_string())
}

#[test]
fn request_and_tls_have_the_name_and_not_the_address() {
    for tls in [false, true] {
        let recorder = Recorder::start(tls);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, recorder.port));
        let names = NameService::start(&[Ipv4Addr::LOCALHOST], Duration::ZERO);
        let mut command = names.tool();
        let name = format!("{}:{}", NameService::NAME, address.port());
        command.args(["hosts", "--endpoints", &format!("{}://{name}", if tls { "https" } else { "http" })]);
        command.args(["--request-timeout", "1s"]);
        if tls {
            command.args(["--cacert", arg(&recorder.ca)]);
        }
        let _daemon = Daemon::spawn(command);
        let (sni, authority) = recorder.asked.recv_timeout(PATIENCE).expect("it is asked");
        assert_eq!(authority, name);
        assert_eq!(sni, tls.then(|| NameService::NAME.to_owned()));
    }
}
