//! What is answered on 4200: `GET /` (`MainAndStaticFileHandler`), a few statements on `/_sql`, and 401
//! where host-based authentication wants a password (`HttpAuthenticator`). Bytes and order of the
//! headers are those of real servers.

mod auth;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread::spawn,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    cluster::{Health, Node},
    settings::Settings,
    steering::{is_before_6, is_steered, version},
};

/// Longer than any request of a test.
const LONGEST: u64 = 1 << 16;

/// A request, as far as it matters.
struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

/// Answers for `node`, each connection on its own thread.
pub fn serve(listener: &TcpListener, node: &Arc<Node>, settings: &Settings) {
    let mut unanswered = Vec::new();
    for stream in listener.incoming().flatten() {
        if is_steered("hang") {
            unanswered.push(stream);
            continue;
        }
        let (node, settings) = (Arc::clone(node), settings.clone());
        // Whoever does not wait for the answer does not get it.
        spawn(move || answer(&stream, &node, &settings));
    }
}

/// Answers one request after the other, until the other side wants no more.
fn answer(stream: &TcpStream, node: &Node, settings: &Settings) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let address = stream.peer_addr()?.ip();
    let mut reader = BufReader::new(stream.take(LONGEST));
    let mut writer = stream;
    while let Some(request) = read(&mut reader)? {
        if let Err(why) = auth::admitted(&request, address, settings) {
            write!(
                writer,
                "HTTP/1.1 401 Unauthorized\r\ncontent-length: {}\r\nwww-authenticate: Basic realm=\"CrateDB \
                 Authenticator\"\r\n\r\n{why}\n",
                why.len() + 1
            )?;
            return Ok(());
        }
        let (status, content_type, body) = match request.path.as_str() {
            "/_sql" => sql(node, &request.body),
            "/" => root(node),
            _ => ("404 Not Found", "text/plain; charset=utf-8", String::new()),
        };
        if request.method == "HEAD" {
            write!(writer, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n")?;
        } else {
            let length = body.len();
            write!(
                writer,
                "HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n{body}"
            )?;
        }
        if request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            break;
        }
    }
    Ok(())
}

/// The next request, or nothing where the other side has closed.
fn read(reader: &mut impl BufRead) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = Vec::new();
    if words.next().is_none_or(|version| version != "HTTP/1.1") {
        headers.push(("connection".to_owned(), "close".to_owned()));
    }
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    let mut request = Request { method, path, headers, body: String::new() };
    let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    reader.take(length).read_to_string(&mut request.body)?;
    Ok(Some(request))
}

/// Before its coordinator starts a node has no state that could be asked: `err.getMessage()` with 400.
/// Since 6.2 a node with a master says 200, before it even the data has to be there.
fn root(node: &Node) -> (&'static str, &'static str, String) {
    let well = match node.health() {
        Health::Starting => {
            let text = "java.lang.NullPointerException: Cannot invoke \
                        \"org.elasticsearch.cluster.ClusterState.blocks()\" because \"state\" is null";
            return ("400 Bad Request", "text/plain; charset=utf-8", text.to_owned());
        }
        Health::NoMaster => false,
        Health::NotRecovered => !is_before_6(),
        Health::Recovered => true,
    };
    let (line, code) = if well { ("200 OK", 200) } else { ("503 Service Unavailable", 503) };
    let quoted = |text: &str| Value::from(text).to_string();
    // The hash is as long as CrateDB's, and begins as that of 6.4.3 did.
    let body = format!(
        "{{\n  \"ok\" : {well},\n  \"status\" : {code},\n  \"name\" : {},\n  \"cluster_name\" : {},\n  \
         \"version\" : {{\n    \"number\" : {},\n    \"build_hash\" : \"{:0<40}\",\n    \"build_timestamp\" : \
         \"NA\",\n    \"build_snapshot\" : false,\n    \"lucene_version\" : \"10.4.0\"\n  }}\n}}\n",
        quoted(node.name()),
        quoted(node.cluster_name()),
        quoted(&version()),
        "d3b321"
    );
    (line, "application/json", body)
}

/// The statements that the tests use.
fn sql(node: &Node, body: &str) -> (&'static str, &'static str, String) {
    let statement: Value = serde_json::from_str(body).unwrap_or_default();
    let statement = statement["stmt"].as_str().unwrap_or_default();
    let Some(cluster) = node.cluster() else {
        let error = json!({"error": {"code": 5031, "message": "MasterNotDiscoveredException"}});
        return ("503 Service Unavailable", "application/json", error.to_string());
    };
    let mut names: Vec<&str> = cluster.nodes.iter().map(|peer| peer.name.as_str()).collect();
    names.sort_unstable();
    let rows: Vec<Value> = match statement {
        "select id from sys.cluster" => vec![json!([cluster.uuid])],
        "select name from sys.nodes order by name" => names.into_iter().map(|name| json!([name])).collect(),
        _ => {
            let name = statement
                .strip_prefix("alter cluster decommission '")
                .and_then(|rest| rest.strip_suffix('\'').filter(|name| node.decommission(name)));
            if name.is_none() {
                let error = json!({"error": {"code": 4000, "message": format!("not played: {statement}")}});
                return ("400 Bad Request", "application/json", error.to_string());
            }
            Vec::new()
        }
    };
    let answer = json!({"cols": [], "rows": rows, "rowcount": rows.len(), "duration": 0.1});
    ("200 OK", "application/json", answer.to_string())
}
