//! Certificates, row 21: replaced while everything runs, and wrong in every way there is.

use std::{
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::Instant,
};

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    OUTLIVED, key,
    lookout::Lookout,
    support::{
        AT_ONCE, PATIENCE, PREFIX, SLACK, TTL,
        daemon::{Daemon, run, tool},
        etcd::{Etcd, arg, scratch},
        eventually, round, stays,
    },
};

/// A certificate authority that issues whatever is asked for.
pub struct Authority {
    pub pem: String,
    pub issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
pub struct Issued {
    pub cert: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        Self::named("the authority")
    }

    pub fn named(name: &str) -> Self {
        Self::with(name, |_| {})
    }

    /// Its own certificate changed by `change`.
    pub fn with(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate of `name` for both sides of a connection, changed by `change`.
    pub fn issue(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Issued { cert: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }
}

/// The three files of one side.
pub struct Files {
    _dir: TempDir,
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Files {
    pub fn new(authority: &Authority, issued: &Issued) -> Self {
        let dir = scratch();
        let [ca, cert, key] = ["ca.pem", "cert.pem", "key.pem"].map(|name| dir.path().join(name));
        let files = Self { _dir: dir, ca, cert, key };
        files.replace(authority, issued);
        files
    }

    fn replace(&self, authority: &Authority, issued: &Issued) {
        std::fs::write(&self.ca, &authority.pem).unwrap();
        std::fs::write(&self.cert, &issued.cert).unwrap();
        std::fs::write(&self.key, &issued.key).unwrap();
    }

    pub fn args(&self) -> Vec<&str> {
        vec!["--cacert", arg(&self.ca), "--cert", arg(&self.cert), "--key", arg(&self.key)]
    }
}

/// Gives etcd, which reads its files at its start, others.
pub fn restart_with(etcd: &mut Etcd, authority: &Authority, issued: &Issued) {
    let pki = etcd.pki();
    std::fs::write(&pki.ca, &authority.pem).unwrap();
    std::fs::write(&pki.cert, &issued.cert).unwrap();
    std::fs::write(&pki.key, &issued.key).unwrap();
    etcd.kill();
    etcd.restart();
}

/// `announce` or `hosts` with certificates that are not etcd's own files.
pub fn verb(verb: &str, etcd: &Etcd, args: &[&str]) -> Command {
    let mut command = tool();
    command.args([verb, "--endpoints", &etcd.url()]).args(args);
    command
}

fn announce(etcd: &Etcd, tls: &[&str], more: &[&str]) -> Daemon {
    Daemon::spawn(verb("announce", etcd, &[&["--host", "h1"], tls, more].concat()))
}

/// A lookout with the certificates that etcd has at the moment.
fn lookout(etcd: &Etcd) -> Lookout {
    let paths = [&etcd.pki().ca, &etcd.pki().cert, &etcd.pki().key].map(PathBuf::clone);
    Lookout::start(etcd.url(), key(), move || {
        let [ca, cert, key] = paths.each_ref().map(|path: &PathBuf| read(path));
        let tls = TlsOptions::new()
            .ca_certificate(Certificate::from_pem(ca))
            .identity(Identity::from_pem(cert, key));
        ConnectOptions::new().with_tls(tls)
    })
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

/// Row 21: a new authority, and the old one is not trusted any more by either side.
#[test]
fn key_is_never_missing_when_all_certificates_are_replaced() {
    let (old, new) = (Authority::new(), Authority::new());
    let mut etcd = Etcd::start_with_tls(&[]);
    restart_with(&mut etcd, &old, &old.issue("etcd", fine));
    let ours = Files::new(&old, &old.issue("h1", fine));
    let left = Files::new(&old, &old.issue("h1", fine));
    let mut daemon = announce(&etcd, &ours.args(), &["--ttl", "10s"]);
    daemon.says("announced", PATIENCE);
    let lookout = lookout(&etcd);

    ours.replace(&new, &new.issue("h1", fine));
    // The connection that there is goes on: nothing is read without a need.
    sleep(TTL);
    assert_eq!(daemon.lines("endpoint left").len(), 0, "{}", daemon.stderr());
    restart_with(&mut etcd, &new, &new.issue("etcd", fine));
    daemon.says("etcd answers again", round(2 * TTL) + SLACK);
    sleep(2 * TTL + AT_ONCE);
    lookout.never_missing("row 21: all certificates replaced");
    assert_eq!(daemon.lines("announced").len(), 1, "{}", daemon.stderr());

    let withdrawn = run(verb("hosts", &etcd, &left.args()));
    assert_eq!(withdrawn.code, 69, "the old authority is withdrawn: {withdrawn:?}");
    assert_eq!(daemon.end(Signal::TERM, AT_ONCE + SLACK), 0);
    assert_eq!(etcd.key(&key()), None);
}

/// Row 21, where ours come later than etcd's, and the key after the certificate.
#[test]
fn key_is_never_missing_when_our_certificates_are_replaced_after_those_of_etcd() {
    let (old, new) = (Authority::new(), Authority::new());
    let mut etcd = Etcd::start_with_tls(&[]);
    restart_with(&mut etcd, &old, &old.issue("etcd", fine));
    let ours = Files::new(&old, &old.issue("h1", fine));
    let mut daemon = announce(&etcd, &ours.args(), &["--ttl", "20s"]);
    daemon.says("announced", PATIENCE);
    let lookout = lookout(&etcd);

    restart_with(&mut etcd, &new, &new.issue("etcd", fine));
    // Not only that etcd closed the connection, which is how the outage began.
    eventually("it says that the certificate is not to be trusted", 2 * round(4 * TTL) + SLACK, || {
        let said = daemon.lines("endpoint left");
        if said.iter().any(|line| line.contains("--cacert")) { Ok(()) } else { Err(format!("{said:#?}")) }
    });
    let issued = new.issue("h1", fine);
    std::fs::write(&ours.ca, &new.pem).unwrap();
    std::fs::write(&ours.cert, &issued.cert).unwrap();
    let said = daemon.says("unusable file", round(4 * TTL) + SLACK);
    assert!(said.contains("it is not the key of"), "{said}");
    std::fs::write(&ours.key, &issued.key).unwrap();
    daemon.says("etcd accepts again", round(4 * TTL) + SLACK);
    sleep(4 * TTL + AT_ONCE);
    lookout.never_missing("row 21: ours replaced after etcd's");
    assert_eq!(daemon.lines("unusable file").len(), 1, "{}", daemon.stderr());
    assert_eq!(daemon.lines("announced").len(), 1, "{}", daemon.stderr());
}

/// What is wrong with a certificate is one sentence that an operator can act on: at the end of
/// `hosts`, and once in the log of `announce`, which goes on and needs no restart.
#[test]
fn wrong_certificate_is_one_clear_sentence_and_got_over_when_it_is_replaced() {
    let (authority, namesake) = (Authority::new(), Authority::new());
    let stranger = Authority::named("a stranger");
    let ours = |ca: &Authority, issued: Issued| Files::new(ca, &issued);
    let fine_of = |issuer: &Authority| issuer.issue("h1", fine);
    type Change = fn(&mut CertificateParams);
    let rows: [(&str, Change, Files, &[&str]); 7] = [
        ("expired server", expired, ours(&authority, fine_of(&authority)), &["expired"]),
        (
            "server of another host",
            elsewhere,
            ours(&authority, fine_of(&authority)),
            &["not valid for", "127.0.0.1"],
        ),
        ("server of an unknown CA", fine, ours(&stranger, fine_of(&authority)), &["CA", "--cacert"]),
        ("server of a CA made anew", fine, ours(&namesake, fine_of(&authority)), &["CA", "--cacert"]),
        ("client of an unknown CA", fine, ours(&authority, fine_of(&stranger)), &["certificate", "--cert"]),
        (
            "expired client",
            fine,
            ours(&authority, authority.issue("h1", expired)),
            &["certificate", "--cert"],
        ),
        (
            NO_CLIENT,
            fine,
            ours(&authority, fine_of(&authority)),
            &["etcd wants a client certificate", "--cert", "--key"],
        ),
    ];
    let mut etcd = Etcd::start_with_tls(&[]);
    let mut unclear = Vec::new();
    for (what, change, files, words) in rows {
        restart_with(&mut etcd, &authority, &authority.issue("etcd", change));
        let mut tls = files.args();
        if what == NO_CLIENT {
            tls.truncate(2);
        }
        let asked = run(verb("hosts", &etcd, &tls));
        assert_eq!((asked.code, asked.stdout.as_str()), (69, ""), "{what}: {asked:?}");
        let error = asked.stderr.lines().last().expect("an error");
        assert_eq!(asked.stderr.matches("error: ").count(), 1, "{what}: {asked:?}");
        let mut daemon = announce(&etcd, &tls, &["--ttl", "5s"]);
        let said = daemon.says("endpoint left", PATIENCE);
        stays("said once", TTL / 2, &1, || daemon.lines("endpoint left").len());
        println!("row 21: {what}:\n  {error}\n  {said}");
        for text in [error, &said] {
            unclear.extend(
                words
                    .iter()
                    .filter(|word| !text.contains(**word))
                    .map(|word| format!("{what}: {word:?} is not in: {text}")),
            );
        }
        if what != NO_CLIENT {
            files.replace(&authority, &authority.issue("h1", fine));
            restart_with(&mut etcd, &authority, &authority.issue("etcd", fine));
            daemon.says("announced", round(TTL) + SLACK);
        }
        assert_eq!(daemon.end(Signal::TERM, AT_ONCE + SLACK), 0, "{what}: {}", daemon.stderr());
    }
    assert!(unclear.is_empty(), "{unclear:#?}");
}

const NO_CLIENT: &str = "no client certificate";

pub fn fine(_: &mut CertificateParams) {}

fn expired(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2021, 1, 1);
}

fn elsewhere(params: &mut CertificateParams) {
    params.subject_alt_names =
        CertificateParams::new(vec!["elsewhere.example".to_owned()]).unwrap().subject_alt_names;
}

/// Login without a password: etcd takes the common name of the certificate for the user.
#[test]
fn common_name_of_the_certificate_is_a_login() {
    let authority = Authority::new();
    let mut etcd = Etcd::start_with_tls(&[]);
    restart_with(&mut etcd, &authority, &authority.issue("etcd", fine));
    let all = format!("{PREFIX}/");
    etcd.enable_auth(&[("h1", "not-used", &[&["readwrite", &key()], &["--prefix=true", "read", &all]])]);
    let ours = Files::new(&authority, &authority.issue("h1", fine));
    let mut daemon = announce(&etcd, &ours.args(), &["--ttl", "5s"]);
    daemon.says("announced", PATIENCE);
    let lookout = lookout(&etcd);
    etcd.kill();
    etcd.restart();
    sleep(OUTLIVED);
    lookout.never_missing("login by certificate: etcd restarted");
    assert_eq!(run(verb("hosts", &etcd, &ours.args())).printed(), "h1:4300\n");

    etcd.etcdctl(&["del", &key()]);
    let deleted = Instant::now();
    eventually("the key is back", AT_ONCE + SLACK, || etcd.key(&key()).ok_or("no key".to_owned()));
    println!("login by certificate: key deleted: back after {} ms", deleted.elapsed().as_millis());

    let stranger = Files::new(&authority, &authority.issue("nobody", fine));
    let refused = run(verb("hosts", &etcd, &stranger.args()));
    assert_eq!(refused.code, 77, "{refused:?}");
    println!("login by certificate, unknown name: {}", refused.stderr);
    assert_eq!(daemon.end(Signal::TERM, AT_ONCE + SLACK), 0);
    assert_eq!(etcd.key(&key()), None);
    assert_eq!(daemon.lines("etcd refuses").len(), 0, "{}", daemon.stderr());
}
