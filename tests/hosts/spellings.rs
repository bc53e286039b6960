//! The environment as people have it: etcdctl's spellings are taken, and what would do nothing is said.

use std::fs;

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::support::{
    daemon::{Finished, run, tool},
    etcd::{Etcd, arg, scratch},
};

/// `docker --env-file` keeps the quotes, and a file from Windows its carriage returns.
#[test]
fn values_are_taken_with_the_quotes_around_them() {
    let (plain, tls) = (Etcd::start(), Etcd::start_with_tls(&[]));
    let pki = tls.pki();
    for around in ["\"", "'", "\"\r", " "] {
        let quoted = |value: &str| {
            let (start, end) = if around == "\"\r" { ("\"", around) } else { (around, around) };
            format!("{start}{value}{end}")
        };
        let mut command = tool();
        command
            .arg("hosts")
            .env("ETCDCTL_ENDPOINTS", quoted(&format!("HTTPS://127.0.0.1:{},", tls.port())))
            .env("ETCDCTL_CACERT", quoted(arg(&pki.ca)))
            .env("ETCDCTL_CERT", quoted(arg(&pki.cert)))
            .env("ETCDCTL_KEY", quoted(arg(&pki.key)))
            // Login is not enabled there: it goes in without.
            .env("ETCDCTL_USER", quoted("root:secret"));
        assert_eq!(run(command).printed(), "\n", "{around:?}");
        let mut command = tool();
        command
            .arg("hosts")
            .env("ETCDCTL_ENDPOINTS", quoted(&format!("127.0.0.1:{}", plain.port())))
            .env("ETCDCTL_CACERT", quoted(""))
            .env("ETCDCTL_USER", quoted(""));
        assert_eq!(run(command).printed(), "\n", "{around:?}: what is empty is not set");
    }
}

#[test]
fn quoted_user_is_who_logs_in() {
    let mut etcd = Etcd::start();
    etcd.enable_auth(&[]);
    let mut command = tool();
    command.arg("hosts").env("ETCDCTL_ENDPOINTS", etcd.url()).env("ETCDCTL_USER", "\"root:root\"");
    assert_eq!(run(command).printed(), "\n");
}

#[test]
fn variable_of_etcdctl_that_does_nothing_is_warned_about() {
    let etcd = Etcd::start();
    let warned = |name: &str, value: &str| -> Finished {
        let mut command = tool();
        command.arg("hosts").env("ETCDCTL_ENDPOINTS", etcd.url()).env(name, value);
        run(command)
    };
    for name in [
        "ETCDCTL_DISCOVERY_SRV",
        "ETCDCTL_INSECURE_SKIP_TLS_VERIFY",
        "ETCDCTL_INSECURE_TRANSPORT",
        "ETCDCTL_ENDPOINT",
        "ETCDCTL_PEERS",
        "ETCDCTL_CA_FILE",
        "ETCDCTL_ENDPONTS",
        "CRATE_DISCOVERY_CHEK",
    ] {
        let finished = warned(name, "x");
        let warnings: Vec<_> = finished.stderr.lines().filter(|line| line.contains(" WARN ")).collect();
        assert_eq!(warnings.len(), 1, "{name}: {finished:?}");
        assert!(warnings[0].contains(name) && warnings[0].contains("does nothing"), "{finished:?}");
        assert_eq!(finished.printed(), "\n");
        assert_eq!(warned(name, "").stderr, "", "{name}: empty is not set");
    }
    assert!(warned("ETCDCTL_CA_FILE", "/x").stderr.contains("set ETCDCTL_CACERT"));
    for name in
        ["ETCDCTL_API", "ETCDCTL_WRITE_OUT", "ETCDCTL_DEBUG", "ETCDCTL_PASSWORD", "ETCDCTL_DIAL_TIMEOUT"]
    {
        assert_eq!(warned(name, "3").stderr, "", "{name}");
    }
}

/// Bundles of roots as people have them, each with the one that counts.
#[test]
fn bundles_of_roots_are_taken_as_people_have_them() {
    let etcd = Etcd::start_with_tls(&[]);
    let pki = etcd.pki();
    let (root, leaf) = (fs::read_to_string(&pki.ca).unwrap(), fs::read_to_string(&pki.cert).unwrap());
    let old = include_str!("v1-root.pem");
    let crlf = |text: &str| text.replace("\r\n", "\n").replace('\n', "\r\n");
    let der = {
        let lines: String = root.lines().filter(|line| !line.starts_with('-')).collect();
        BASE64_STANDARD.decode(lines).unwrap()
    };
    // OpenSSL's trust settings follow the certificate.
    let trusted = BASE64_STANDARD
        .encode([&der[..], b"\x30\x0c\x30\x0a\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x01"].concat());
    let lines: Vec<_> = trusted.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line)).collect();
    let lines = lines.join("\n");
    let bundles: [(&str, Vec<u8>); 8] = [
        ("byte order mark", format!("\u{feff}{root}").into()),
        ("foreign line ends", crlf(&root).into()),
        (
            "text between",
            [b"Bag Attributes\n  friendlyName: R\xf6ot\n".as_slice(), root.as_bytes(), b"\n\x00\xff"]
                .concat(),
        ),
        ("a leaf among them", format!("{leaf}{root}").into()),
        ("an old root before it", format!("{old}{root}").into()),
        ("an old root after it", format!("{root}{old}").into()),
        (
            "with trust settings",
            format!("-----BEGIN TRUSTED CERTIFICATE-----\n{lines}\n-----END TRUSTED CERTIFICATE-----\n")
                .into(),
        ),
        ("a very old label", root.replace(" CERTIFICATE-", " X509 CERTIFICATE-").into()),
    ];
    let dir = scratch();
    let path = dir.path().join("bundle.pem");
    for (what, bundle) in bundles {
        fs::write(&path, bundle).unwrap();
        let mut command = tool();
        command.args(["hosts", "--endpoints", &etcd.url(), "--cacert", arg(&path)]).args([
            "--cert",
            arg(&pki.cert),
            "--key",
            arg(&pki.key),
        ]);
        let finished = run(command);
        assert_eq!((finished.code, finished.stdout.as_str()), (0, "\n"), "{what}: {finished:?}");
    }
}
