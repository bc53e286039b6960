//! Certificates of etcd that etcdctl takes and that are unusual, and those that we do not take: each is one sentence.

use base64::{Engine, prelude::BASE64_STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer,
    KeyPair, NameConstraints, PKCS_RSA_SHA256, PublicKeyData, SignatureAlgorithm, date_time_ymd,
};
use rustix::process::Signal;

use crate::{
    support::{
        AT_ONCE, PATIENCE, SLACK,
        daemon::{Daemon, Finished, run, tool},
        etcd::{Etcd, arg, scratch},
        eventually,
    },
    tls::{Authority, Files, Issued, fine, restart_with, verb},
};

/// Words of libraries, which no operator should have to read.
const JARGON: [&str; 14] = [
    "OtherError",
    "Other(",
    "DnsName(",
    "IpAddress(",
    "Context {",
    "InvalidContentType",
    "received fatal alert",
    "peer certificate",
    "handshake eof",
    "frame with invalid",
    "protocol error",
    "grpc-status",
    "compression flag",
    "broken pipe",
];

/// It failed with one sentence that holds all of `words` and none of [`JARGON`].
#[track_caller]
pub fn is_one_sentence(what: &str, finished: &Finished, words: &[&str]) {
    assert_eq!((finished.code, finished.stdout.as_str()), (69, ""), "{what}: {finished:?}");
    let errors: Vec<_> = finished.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{what}: {finished:?}");
    println!("{what}: {}", errors[0]);
    for word in words {
        assert!(errors[0].contains(word), "{what}: {word:?} is not in: {}", errors[0]);
    }
    for word in JARGON {
        assert!(!finished.stderr.contains(word), "{what}: {word:?} is in: {}", finished.stderr);
    }
}

/// `etcd --auto-tls` makes keys that ring does not know.
#[test]
fn p521_certificate_that_etcd_made_itself_is_taken() {
    let data = scratch();
    let data = data.path().join("data");
    let mut etcd = Etcd::unstarted(&["--auto-tls", "--data-dir", arg(&data)], false);
    let url = format!("https://127.0.0.1:{}", etcd.port());
    etcd.add_flags(&["--listen-client-urls", &url, "--advertise-client-urls", &url]);
    etcd.launch();
    assert!(etcd.comes_up(), "{}", etcd.log_tail());
    let made = data.join("fixtures/client");
    let (cert, key) = (made.join("cert.pem"), made.join("key.pem"));
    let with = |verb: &str, args: &[&str]| {
        let mut command = tool();
        command.args([verb, "--endpoints", &url, "--cacert", arg(&cert)]).args(args);
        command
    };
    let mut daemon = Daemon::spawn(with("announce", &["--host", "h1", "--ttl", "5s"]));
    // Etcd 3.4 makes the certificate of a server; newer ones make that of a CA, which is none that a server may have.
    let is_server = eventually("it is announced, or told why not", PATIENCE, || {
        let refused =
            daemon.lines("endpoint left").iter().any(|line| line.contains("that of a CA (CA:TRUE)"));
        match (refused, daemon.lines("announced").len()) {
            (true, 0) => Ok(false),
            (false, 1) => Ok(true),
            _ => Err(daemon.stderr()),
        }
    });
    let listed = run(with("hosts", &[]));
    if is_server {
        assert_eq!(listed.printed(), "h1:4300\n");
    } else {
        assert_eq!(listed.code, 69, "{}", listed.stderr);
    }
    assert_eq!(daemon.end(Signal::TERM, AT_ONCE + SLACK), 0, "{}", daemon.stderr());

    // To sign with such a key is another matter.
    let ours = run(with("hosts", &["--cert", arg(&cert), "--key", arg(&key)]));
    assert_eq!(ours.code, 78, "{ours:?}");
    for word in ["\"--key\"", arg(&key), "P-521", "allowed is RSA", "P-384", "Ed25519"] {
        assert!(ours.stderr.contains(word), "{word:?} is not in: {}", ours.stderr);
    }
}

#[test]
fn certificate_that_we_do_not_take_is_one_sentence_that_says_what_is_wrong() {
    let authority = Authority::new();
    let narrow = Authority::with("a narrow authority", |params| {
        let elsewhere = GeneralSubtree::DnsName("elsewhere.example".to_owned());
        let network = GeneralSubtree::IpAddress(rcgen::CidrSubnet::V4([10, 0, 0, 0], [255, 0, 0, 0]));
        params.name_constraints =
            Some(NameConstraints { permitted_subtrees: vec![elsewhere, network], excluded_subtrees: vec![] });
    });
    // The key alone is from elsewhere: ring makes none so short.
    let short = include_str!("rsa1024.key.pem");
    let public = ShortKey(BASE64_STANDARD.decode(SHORT_KEY).unwrap());
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "etcd");
    let cert = params.signed_by(&public, &authority.issuer).unwrap().pem();
    let short = Issued { cert, key: short.to_owned() };

    let rows: [(&str, &Authority, Issued, &[&str]); 8] = [
        (
            "server that is a CA",
            &authority,
            authority.issue("etcd", |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
            &["that of a CA (CA:TRUE)", "CA:FALSE"],
        ),
        (
            "server for clients only",
            &authority,
            authority.issue("etcd", |params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            }),
            &["not one for servers", "serverAuth"],
        ),
        (
            "server not valid yet",
            &authority,
            authority.issue("etcd", |params| {
                params.not_before = date_time_ymd(2190, 1, 1);
                params.not_after = date_time_ymd(2191, 1, 1);
            }),
            &["not valid yet", "clocks"],
        ),
        (
            "server without names",
            &authority,
            authority.issue("etcd", |params| params.subject_alt_names = vec![]),
            &["not valid for \"127.0.0.1\"", "subjectAltName", "common name does not count"],
        ),
        (
            "server with a * too wide",
            &authority,
            authority.issue("etcd", |params| {
                params.subject_alt_names =
                    CertificateParams::new(vec!["*.internal".to_owned()]).unwrap().subject_alt_names;
            }),
            &["not valid for \"127.0.0.1\", only for *.internal (a * counts only before two more labels)"],
        ),
        ("RSA 1024", &authority, short, &["an RSA key of 1024 bits", "allowed is RSA of 2048"]),
        (
            "server that its CA may not vouch for",
            &narrow,
            narrow.issue("etcd", fine),
            &["names a host that its CA may not vouch for (name constraints)"],
        ),
        (
            "server whose CA is an intermediate one that is not sent",
            &authority,
            below(&authority),
            &["a CA that we do not trust", "intermediate", "\"--cacert\""],
        ),
    ];
    let mut etcd = Etcd::start_with_tls(&[]);
    for (what, authority, server, words) in rows {
        restart_with(&mut etcd, authority, &server);
        let ours = Files::new(authority, &authority.issue("h1", fine));
        is_one_sentence(what, &run(verb("hosts", &etcd, &ours.args())), words);
    }
}

/// The public half of rsa1024.key.pem, as PKCS #1 has it.
const SHORT_KEY: &str = "MIGJAoGBAMBQMHiZUrPVexxSt9pAq/0uio6BTs36WbEBzL8hHAyYadXAuAOai51RIauFM5OvQC8ojKtYHuHnsWvCJOcNJX\
                         PY0m/46rHZwAaT05DFPrB6hsOlFYgRWCQW7eUyrN3VVJUQpx7zhxnVVAC2+42nv5Ke9MzosTyT1tjDj5ARlUobAgMBAAE=";

struct ShortKey(Vec<u8>);

impl PublicKeyData for ShortKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_RSA_SHA256
    }
}

/// A certificate of an intermediate authority below `root`.
fn below(root: &Authority) -> Issued {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "an intermediate");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    params.signed_by(&key, &root.issuer).unwrap();
    let intermediate = Authority { pem: String::new(), issuer: Issuer::new(params, key) };
    intermediate.issue("etcd", fine)
}
