//! Who may ask: `auth.host_based`, line by line, the first one that fits.

use std::net::IpAddr;

use base64::{Engine, prelude::BASE64_STANDARD};

use super::Request;
use crate::{settings::Settings, steering::words};

/// Whether the request is let in; otherwise the text of the 401. Without a name the asker is `crate`.
pub fn admitted(request: &Request, address: IpAddr, settings: &Settings) -> Result<(), String> {
    if settings.get("auth.host_based.enabled") != Some("true") {
        return Ok(());
    }
    let given = request.header("authorization").and_then(|value| {
        let decoded = BASE64_STANDARD.decode(value.strip_prefix("Basic ")?).ok()?;
        let decoded = String::from_utf8(decoded).ok()?;
        decoded.split_once(':').map(|(name, password)| (name.to_owned(), password.to_owned()))
    });
    let (user, password) = given.unwrap_or_else(|| ("crate".to_owned(), String::new()));
    let lines = settings.host_based_lines();
    let fits = |line: &&std::collections::BTreeMap<&str, &str>| {
        line.get("user").is_none_or(|name| *name == user)
            && line.get("protocol").is_none_or(|protocol| *protocol == "http")
            && line.get("address").is_none_or(|at| match *at {
                "_local_" => address.is_loopback(),
                at => at.parse() == Ok(address),
            })
    };
    let Some(line) = lines.iter().find(fits) else {
        return Err(format!(
            "No valid auth.host_based.config entry found for host \"{address}\", user \"{user}\", protocol \
             \"http\". Did you enable TLS in your client?"
        ));
    };
    match line.get("method").copied().unwrap_or("trust") {
        "password" if words().contains(&format!("user={user}:{password}")) => Ok(()),
        "trust" if user == "crate" => Ok(()),
        method => Err(format!("{method} authentication failed for user \"{user}\"")),
    }
}
