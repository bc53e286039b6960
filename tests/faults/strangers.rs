//! What stands where etcd should: TLS where there should be none and the other way round, a web server, ssh, a gateway that
//! refuses. Each is one sentence that says what is there, or what to try.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
};

use tokio::net::{TcpListener as AsyncListener, TcpStream as AsyncStream};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

use crate::{
    certificates::is_one_sentence,
    support::{
        daemon::{Finished, run, tool},
        etcd::{Etcd, arg},
    },
    tls::{Authority, Files, fine},
};

/// `hosts` at this endpoint.
fn hosts_at(endpoint: &str, args: &[&str]) -> Finished {
    let mut command = tool();
    command.args(["hosts", "--request-timeout", "5s", "--endpoints", endpoint]).args(args);
    run(command)
}

/// A server that does this with each connection, until the test ends.
fn serve(each: impl Fn(TcpStream) -> std::io::Result<()> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            // A client that went away has seen enough.
            let _ = each(stream);
        }
    });
    address
}

/// A server that waits for a first word, says this, and closes.
fn says(bytes: &'static [u8]) -> SocketAddr {
    serve(move |mut stream| stream.read(&mut [0; 1024]).and_then(|_| stream.write_all(bytes)))
}

/// A server of HTTP/2 that answers each first request with these headers (HPACK) and no body.
fn answers(headers: &'static [u8]) -> SocketAddr {
    serve(move |mut stream| {
        // Ours, and that theirs is taken.
        stream.write_all(b"\0\0\0\x04\0\0\0\0\0\0\0\0\x04\x01\0\0\0\0")?;
        stream.read_exact(&mut [0; 24])?;
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head)?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            stream.read_exact(&mut vec![0; length as usize])?;
            // HEADERS, of the first stream.
            if head[3] == 1 {
                break;
            }
        }
        stream.write_all(&[0, 0, headers.len() as u8, 1, 5, 0, 0, 0, 1])?;
        stream.write_all(headers)?;
        // Until the client goes.
        while stream.read(&mut [0; 1024])? > 0 {}
        Ok(())
    })
}

/// A TLS terminator that names no protocol (ALPN), before `behind`. Without one it speaks HTTP/2, and closes at once.
fn terminator(files: &Files, behind: Option<u16>) -> SocketAddr {
    let cert = CertificateDer::from_pem_file(&files.cert).unwrap();
    let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert], key)
        .unwrap();
    if behind.is_none() {
        config.alpn_protocols.push(b"h2".to_vec());
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (listener, acceptor) =
                (AsyncListener::from_std(listener).unwrap(), TlsAcceptor::from(Arc::new(config)));
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let Some(port) = behind else { return };
                    let mut etcd = AsyncStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut etcd).await;
                });
            }
        });
    });
    address
}

#[test]
fn wrong_scheme_is_said_both_ways() {
    let (plain, tls) = (Etcd::start(), Etcd::start_with_tls(&[]));
    let ca = arg(&tls.pki().ca);
    let https = |address: &str| hosts_at(&format!("https://{address}"), &["--cacert", ca]);
    let at = |port: u16| format!("127.0.0.1:{port}");
    is_one_sentence("https to a plain etcd", &https(&at(plain.port())), &["speaks no TLS", "use http://"]);
    let http = hosts_at(&format!("http://127.0.0.1:{}", tls.port()), &[]);
    is_one_sentence("http to a TLS etcd", &http, &["speaks TLS", "use https://"]);
    // Others than etcd say so.
    let alert = says(b"\x15\x03\x01\0\x02\x02\x46");
    is_one_sentence(
        "alert of TLS",
        &hosts_at(&format!("http://{alert}"), &[]),
        &["it speaks TLS: use https://"],
    );
    let nginx = says(
        b"HTTP/1.1 400 Bad Request\r\nServer: nginx\r\n\r\n<html><head><title>400 The plain HTTP request was sent to \
          HTTPS port</title></head></html>",
    );
    is_one_sentence(
        "http to https",
        &hosts_at(&format!("http://{nginx}"), &[]),
        &["it speaks TLS: use https://"],
    );
    let web = says(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    is_one_sentence("https to http", &https(&web.to_string()), &["it speaks no TLS: use http://"]);
}

#[test]
fn what_is_no_etcd_is_said_to_be_none() {
    let ca = Authority::new();
    let files = Files::new(&ca, &ca.issue("etcd", fine));
    let forbidden = answers(b"\x08\x03403");
    let page = answers(b"\x88\x0f\x10\x09text/html");
    let rows: [(&str, SocketAddr, &[&str]); 6] = [
        ("gateway that refuses", forbidden, &["HTTP 403: this is no etcd, or something before it refuses"]),
        ("web page", page, &["HTTP 200: this is no etcd"]),
        (
            "HTTP/1.1",
            says(b"HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\n\r\n"),
            &["HTTP 502: this is no etcd"],
        ),
        ("HTTP/0.9", says(b"<!DOCTYPE HTML>\n<html>"), &["HTTP/1: this is no etcd"]),
        ("ssh", says(b"SSH-2.0-OpenSSH_9.2p1\r\n"), &["it speaks SSH: this is no etcd"]),
        ("something", says(b"220 \x1b[31mmail\r\n"), &["another protocol", r"220 \u{1b}[31mmail"]),
    ];
    for (what, address, words) in rows {
        is_one_sentence(what, &hosts_at(&format!("http://{address}"), &[]), words);
    }
    let ssh = says(b"SSH-2.0-OpenSSH_9.2p1\r\n");
    let https = hosts_at(&format!("https://{ssh}"), &["--cacert", arg(&files.ca)]);
    is_one_sentence("https to ssh", &https, &["it speaks SSH: this is no etcd"]);
}

/// etcdctl of these versions takes it, too.
#[test]
fn tls_terminator_without_alpn_is_taken() {
    let (ca, etcd) = (Authority::new(), Etcd::start());
    let files = Files::new(&ca, &ca.issue("etcd", fine));
    let address = terminator(&files, Some(etcd.port()));
    let finished = hosts_at(&format!("https://{address}"), &["--cacert", arg(&files.ca)]);
    assert_eq!(finished.printed(), "\n");
}

/// Who was not asked for a certificate is not sent to look for one.
#[test]
fn end_of_a_connection_is_blamed_on_our_certificate_only_where_one_is_asked_for() {
    let ca = Authority::new();
    let files = Files::new(&ca, &ca.issue("etcd", fine));
    let url = format!("https://{}", terminator(&files, None));
    for args in [vec!["--cacert", arg(&files.ca)], files.args()] {
        let finished = hosts_at(&url, &args);
        is_one_sentence("terminator with nothing behind it", &finished, &["closed"]);
        assert!(!finished.stderr.contains("--cert"), "{}", finished.stderr);
    }
}
