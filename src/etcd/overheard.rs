//! Keeps the first bytes that the other side sends, to explain what is there if it is no etcd.
//!
//! The HTTP/2 library would only say that a frame has an invalid size. The bytes show what is there: a web server, ssh,
//! TLS.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::rustls;

use super::words::{self, Said};
use crate::text::escape;

/// How many bytes are kept: enough for the head of a short answer, and for the beginning of its text.
const KEPT: usize = 512;
/// How many bytes of an unknown protocol are shown.
const SHOWN: usize = 32;

/// The first bytes, and the error with which TLS ended. All clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    bytes: Vec<u8>,
    failure: Option<String>,
}

impl Heard {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, bytes: &[u8]) {
        let heard = &mut self.kept().bytes;
        let room = KEPT.saturating_sub(heard.len());
        heard.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Forgets everything, for a new connection.
    pub(super) fn clear(&self) {
        *self.kept() = Kept::default();
    }

    /// Whether nothing was received.
    pub(super) fn is_empty(&self) -> bool {
        self.kept().bytes.is_empty()
    }

    /// The error with which TLS ended, if there was one. The HTTP/2 library keeps only a text of it.
    pub(super) fn failure(&self) -> Option<String> {
        self.kept().failure.clone()
    }

    /// What answered where TLS was expected.
    pub(super) fn instead_of_tls(&self) -> Option<String> {
        match Protocol::of(&self.kept().bytes) {
            None => Some(
                "it closed the connection where TLS begins: where etcd speaks no TLS, use http://".to_owned(),
            ),
            Some(Protocol::Http2 | Protocol::Http1(..)) => Some("it speaks no TLS: use http://".to_owned()),
            Some(Protocol::Tls) => None,
            Some(other) => other.into_refusal(),
        }
    }

    /// What answered where HTTP/2 was expected. `None` if it is HTTP/2, or if nothing was received.
    pub(super) fn instead_of_http2(&self) -> Option<String> {
        match Protocol::of(&self.kept().bytes)? {
            Protocol::Tls | Protocol::Http1(_, true) => Some("it speaks TLS: use https://".to_owned()),
            other => other.into_refusal(),
        }
    }
}

/// The protocol of the first bytes.
enum Protocol {
    Http2,
    Tls,
    /// The status, and whether the answer mentions HTTPS, as a web server does that wants HTTPS.
    Http1(String, bool),
    Ssh,
    /// The first bytes of a protocol that we do not know.
    Unknown(String),
}

impl Protocol {
    /// `None` if nothing was received.
    fn of(heard: &[u8]) -> Option<Self> {
        let shown = &heard[..heard.len().min(SHOWN)];
        Some(match heard {
            [] => return None,
            // A TLS record: an alert or a handshake, of version 3.x (RFC 8446, section 5.1).
            [0x15 | 0x16, 3, 0..=4, ..] => Self::Tls,
            // The SETTINGS frame, with which a server begins (RFC 9113, sections 3.4 and 4.1).
            [0, 0, _, 4, 0, 0, 0, 0, 0, ..] => Self::Http2,
            _ if heard.starts_with(b"HTTP/1.") => {
                let status = heard.get(9..12).filter(|status| status.iter().all(u8::is_ascii_digit));
                let is_400 = status.is_some_and(|status| status == b"400");
                let shown = status.map_or_else(|| "/1".to_owned(), |status| format!(" {}", escape(status)));
                Self::Http1(shown, is_400 && heard.windows(5).any(|part| part == b"HTTPS"))
            }
            // A web server that reads our first line as HTTP/0.9 answers without a status.
            [b'<', b'!' | b'h' | b'H', ..] => Self::Http1("/1".to_owned(), false),
            _ if heard.starts_with(b"SSH-") => Self::Ssh,
            _ => Self::Unknown(escape(shown)),
        })
    }

    fn into_refusal(self) -> Option<String> {
        match self {
            Self::Http2 | Self::Tls => None,
            Self::Http1(status, _) => Some(is_refused(&status)),
            Self::Ssh => Some("it speaks SSH: this is no etcd".to_owned()),
            Self::Unknown(start) => {
                Some(format!("it speaks another protocol than etcd, which begins with \"{start}\""))
            }
        }
    }
}

/// The sentence for an HTTP answer that is not from etcd.
fn is_refused(answer: &str) -> String {
    format!("HTTP{answer}: this is no etcd, or something before it refuses")
}

/// The same for the status of an answer.
pub(super) fn refused(status: http::StatusCode) -> String {
    is_refused(&format!(" {}", status.as_str()))
}

/// A stream whose first bytes are kept.
#[derive(Debug)]
pub(super) struct Overheard<S> {
    stream: S,
    heard: Heard,
    rest: usize,
}

impl<S> Overheard<S> {
    pub(super) fn new(stream: S, heard: Heard) -> Self {
        Self { stream, heard, rest: KEPT }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Overheard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if let Err(error) = ready!(Pin::new(&mut self.stream).poll_read(cx, buf)) {
            if !error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
                return Poll::Ready(Err(error));
            }
            let said = words::of_io(&error);
            self.heard.kept().failure = Some(said.clone());
            return Poll::Ready(Err(io::Error::new(error.kind(), Said(said))));
        }
        let new = buf.filled().get(before..).unwrap_or_default();
        if self.rest > 0 && !new.is_empty() {
            self.heard.add(new);
            self.rest = self.rest.saturating_sub(new.len());
        }
        Poll::Ready(Ok(()))
    }
}

impl<S> Overheard<S> {
    /// The result of a write. A server of another protocol answers and closes while we still write. Its answer is
    /// waiting to be read, and an error of the write would lose it. So a write "succeeds" as long as nothing was
    /// received, and the next read reports how the connection ended.
    fn written(&self, result: io::Result<usize>, length: usize) -> io::Result<usize> {
        match result {
            Err(error)
                if self.rest == KEPT
                    && matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
            {
                Ok(length)
            }
            other => other,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Overheard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.stream).poll_write(cx, buf));
        Poll::Ready(self.written(result, buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs));
        Poll::Ready(self.written(result, bufs.iter().map(|buf| buf.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(bytes: &[u8]) -> Heard {
        let heard = Heard::default();
        heard.add(bytes);
        heard
    }

    #[test]
    fn first_bytes_tell_what_is_there() {
        let settings = b"\0\0\x06\x04\0\0\0\0\0";
        let alert = b"\x15\x03\x01\0\x02\x02\x28";
        let go = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
        let rows: [(&[u8], Option<&str>, Option<&str>); 8] = [
            (b"<!DOCTYPE HTML>", Some("no TLS"), Some("HTTP/1: this is no etcd")),
            (b"", Some("use http://"), None),
            (settings, Some("no TLS: use http://"), None),
            (alert, None, Some("use https://")),
            (go, Some("no TLS"), Some("use https://")),
            (b"HTTP/1.1 403 Forbidden\r\n", Some("no TLS"), Some("HTTP 403")),
            (b"SSH-2.0-OpenSSH_9.2p1\r\n", Some("SSH"), Some("SSH")),
            (b"220 mail\x1b[0m \"ESMTP\"\r\n", Some("220 mail"), Some(r#"220 mail\u{1b}[0m \"ESMTP\""#)),
        ];
        for (bytes, tls, http2) in rows {
            for (told, wanted) in
                [(said(bytes).instead_of_tls(), tls), (said(bytes).instead_of_http2(), http2)]
            {
                let good = match (&told, wanted) {
                    (Some(told), Some(wanted)) => told.contains(wanted),
                    (None, None) => true,
                    _ => false,
                };
                assert!(good, "{:?}: {told:?}, not {wanted:?}", bytes.escape_ascii().to_string());
            }
        }
    }

    #[test]
    fn no_more_than_the_first_bytes_is_kept() {
        let heard = said(&[b'x'; 2 * KEPT]);
        heard.add(b"more");
        assert_eq!(heard.kept().bytes.len(), KEPT);
        assert!(heard.instead_of_http2().unwrap().len() < 200);
    }
}
