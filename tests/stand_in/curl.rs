//! What our health checks and tests ask of the image's `curl`.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

/// Asks the last argument, `http://127.0.0.1:PORT/PATH`, with the body of `--data` if there is one, and
/// prints the answer's body unless there is an `--output`. The exit code of `curl --fail`: 0, 7 where
/// nobody answers, 22 for anything but a 200.
pub fn run(arguments: &[String]) -> i32 {
    let url = arguments.last().map_or("", String::as_str);
    let value =
        |name: &str| arguments.iter().skip_while(|argument| *argument != name).nth(1).map(String::as_str);
    let (host, path) = url.trim_start_matches("http://").split_once('/').unwrap_or((url, ""));
    let port = host.strip_prefix("127.0.0.1:").and_then(|port| port.parse().ok()).unwrap_or(0);
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(3)))?;
        let body = value("--data");
        let method = if body.is_some() { "POST" } else { "GET" };
        let body = body.unwrap_or_default();
        write!(
            stream,
            "{method} /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    match ask() {
        Ok(answer) if answer.starts_with("HTTP/1.1 200 ") => {
            if value("--output").is_none() {
                print!("{}", answer.split_once("\r\n\r\n").map_or("", |(_, body)| body));
            }
            0
        }
        Ok(_) => 22,
        Err(_) => 7,
    }
}
