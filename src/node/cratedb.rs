//! Judges an answer to `GET /`: bytes go in, a verdict comes out. It has no I/O.
//!
//! Only an answer that CrateDB alone gives is good. These were measured on 5.10.16 and 6.4.3:
//!
//! - 200: the node knows a master. The JSON holds `"ok" : true`.
//! - 503: the node is up, but knows no master yet. The JSON holds `"ok" : false`. Nodes must be announced in this
//!   state, because otherwise no cluster can form.
//! - 401 of `CrateDB Authenticator`: the node is up, and wants a password.
//!
//! For a moment before it can be joined, the node answers 400. The `status` in the JSON is not used: from 4.0 to 5.10.1
//! it is wrong.

use httparse::{EMPTY_HEADER, Header, Response, Status};
use serde_json::{Map, Value};

use super::{Identity, Told};
use crate::text::decode;

/// The longest answer that is read, in bytes. CrateDB's own answer has less than 500.
pub const LONGEST: usize = 64 * 1024;
/// The most header lines that are read. CrateDB sends two.
const MOST_HEADERS: usize = 64;
/// The header that CrateDB's `HttpAuthUpstreamHandler` sends with a 401.
const AUTHENTICATOR: &str = r#"Basic realm="CrateDB Authenticator""#;

/// Judges `answer`, the bytes that have come so far. `ended` means that no more will come.
///
/// `None` means that more bytes are needed; that never happens once `ended` is set or [`LONGEST`] is reached. `Ok` is
/// what the node told, which is never [`Told::Nothing`]. `Err` says in plain words why the answer is bad.
pub fn judge(answer: &[u8], ended: bool) -> Option<Result<Told, String>> {
    let bad = |reason: &str| Some(Err(reason.to_owned()));
    let more = |reason: &str| match answer.len() {
        _ if ended => bad(reason),
        LONGEST.. => bad("its answer is longer than 64 KiB"),
        _ => None,
    };
    match answer {
        [] => return more("closed without an answer"),
        // A TLS alert or handshake (RFC 8446, section 5.1).
        [0x15 | 0x16, 0x03, ..] => return bad("it speaks TLS: use crate+https://"),
        [0x15 | 0x16] if !ended => return None,
        _ => {}
    }
    let cut_short = "closed in the middle of its answer";
    let mut headers = [EMPTY_HEADER; MOST_HEADERS];
    let mut response = Response::new(&mut headers);
    let head = match response.parse(answer) {
        Ok(Status::Complete(head)) => head,
        Ok(Status::Partial) => return more(cut_short),
        Err(_) => return bad("it is no CrateDB: it speaks no HTTP"),
    };
    let status = response.code.unwrap_or_default();
    let has_master = match status {
        200 => true,
        503 => false,
        401 if is_authenticator(response.headers) => return Some(Ok(Told::Locked)),
        401 => return bad("it is no CrateDB: answered 401, but not as CrateDB's authenticator"),
        _ => {
            return Some(Err(format!(
                "answered {status}, which is not CrateDB's word for a node that can be joined"
            )));
        }
    };
    let foreign = || Some(Err(format!("it is no CrateDB: what it answered with {status} is not CrateDB's")));
    let body = &answer[head..];
    let body = match content_length(response.headers) {
        Ok(Some(length)) if length > LONGEST - head.min(LONGEST) => {
            return bad("its answer is longer than 64 KiB");
        }
        Ok(Some(length)) => match body.get(..length) {
            Some(body) => body,
            None => return more(cut_short),
        },
        Ok(None) if ended => body,
        Ok(None) => return more(cut_short),
        Err(()) => return foreign(),
    };
    match identity(body, has_master) {
        Some(identity) => Some(Ok(Told::Known(identity))),
        None => foreign(),
    }
}

fn is_authenticator(headers: &[Header<'_>]) -> bool {
    values(headers, "www-authenticate").any(|value| value.eq_ignore_ascii_case(AUTHENTICATOR.as_bytes()))
}

/// The length of the body in bytes, if the headers tell it.
fn content_length(headers: &[Header<'_>]) -> Result<Option<usize>, ()> {
    let mut lengths = values(headers, "content-length");
    let Some(length) = lengths.next() else { return Ok(None) };
    let digits = std::str::from_utf8(length).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    match digits.and_then(|digits| digits.parse().ok()) {
        Some(length) if lengths.next().is_none() => Ok(Some(length)),
        _ => Err(()),
    }
}

fn values<'a>(headers: &'a [Header<'a>], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let named = headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
    named.map(|header| header.value.trim_ascii())
}

/// The node, if `body` is an answer of CrateDB.
fn identity(body: &[u8], has_master: bool) -> Option<Identity> {
    let body: Map<String, Value> = serde_json::from_slice(body).ok()?;
    // The field must be there and be a number, but its value cannot be relied on.
    body.get("status").filter(|status| status.is_number())?;
    let text = |value: Option<&Value>| Some(decode(value?.as_str()?.as_bytes()));
    let identity = Identity {
        name: text(body.get("name"))?,
        cluster: text(body.get("cluster_name"))?,
        version: text(body.get("version")?.as_object()?.get("number"))?,
        has_master,
    };
    (body.get("ok")?.as_bool()? == has_master).then_some(identity)
}

#[cfg(test)]
mod tests;
