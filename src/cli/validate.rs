//! From what was typed to options that fit together.

use std::{env, net::IpAddr, path::PathBuf, time::Duration};

use super::{Announce, Invocation, Status, Verb, args, values};
use crate::{
    announcement::Announcement,
    etcd::{
        self,
        credentials::{Login, Password, Secret, TlsFiles},
        parse_endpoints,
    },
    host::Host,
    node::gate,
    verbs::{bootstrap, hosts, watch},
};

/// `--timeout` of `hosts --wait-for`.
const DEFAULT_WAIT: Duration = Duration::from_secs(60);

/// `warnings` are said with those found here.
pub(super) fn validate(cli: args::Cli, mut warnings: Vec<String>) -> Result<Invocation, String> {
    let (connection, verb) = match cli.verb {
        args::Verb::Announce(args::Announce {
            host,
            http,
            transport,
            psql,
            address,
            ttl,
            check,
            check_interval,
            check_timeout,
            rise,
            fall,
            stop_timeout,
            feeds,
            connection,
        }) => {
            let checks = check.iter().map(|url| url.trim().parse()).collect::<Result<_, _>>().map_err(
                |why: String| {
                    let from = taken_from("CRATE_DISCOVERY_CHECK", &check.join(","));
                    format!("invalid value for \"--check\"{from}: {why}")
                },
            )?;
            let gate =
                gate::Settings { checks, interval: check_interval, timeout: check_timeout, rise, fall };
            let announcement = Announcement { http, transport, psql, address };
            let feeds = feeds.validate()?;
            (connection, Verb::Announce(Announce { host, announcement, ttl, gate, stop_timeout, feeds }))
        }
        args::Verb::Hosts(args::Hosts {
            format,
            port,
            exclude,
            output,
            allow_stale,
            wait_for,
            timeout,
            connection,
        }) => {
            let wait_for = wait_for.map(|hosts| (hosts as usize, timeout.unwrap_or(DEFAULT_WAIT)));
            (connection, Verb::Hosts(hosts::Options { format, port, exclude, output, allow_stale, wait_for }))
        }
        args::Verb::Watch(args::Watch { format, port, exclude, output, feeds, connection }) => {
            let feeds = feeds.validate()?;
            (connection, Verb::Watch(watch::Options { format, port, exclude, output, feeds }))
        }
        args::Verb::Bootstrap(args::Bootstrap {
            expect,
            node_name,
            timeout,
            format,
            output,
            wait,
            show,
            reset,
            yes,
            connection,
        }) => {
            let options = match (expect, node_name) {
                _ if show => bootstrap::Options::Show,
                _ if reset && yes => bootstrap::Options::Reset(timeout),
                _ if reset => {
                    return Err(
                        "\"--reset\" is given without \"--yes\": it forgets who was to elect the first \
                                master, and that the cluster has formed"
                            .to_owned(),
                    );
                }
                (Some(expect), Some(name)) => {
                    let env = format == args::BootstrapFormat::Env;
                    let within = timeout;
                    let agree = bootstrap::Agree { expect, name, within, wait, env, output };
                    bootstrap::Options::Agree(agree)
                }
                // Clap asks for both.
                _ => return Err("\"--expect\" and \"--node-name\" are missing: allowed is both".to_owned()),
            };
            (connection, Verb::Bootstrap(options))
        }
        args::Verb::Status(args::Status { format, host, own, connection }) => {
            let own_host = if own { Some(announced_host()?) } else { None };
            (connection, Verb::Status(Status { json: format == args::StatusFormat::Json, host, own_host }))
        }
    };
    let args::Connection {
        endpoints,
        cacert,
        cert,
        key,
        user,
        password_file,
        prefix,
        request_timeout,
        log,
        log_format,
    } = connection;
    let identity = match (cert, key) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        (Some(_), None) => {
            return Err("\"--cert\" is given without \"--key\": allowed is both or none".to_owned());
        }
        (None, Some(_)) => {
            return Err("\"--key\" is given without \"--cert\": allowed is both or none".to_owned());
        }
    };
    let tls = TlsFiles { cacert, identity };
    let urls = parse_endpoints(&endpoints, tls.is_some()).map_err(|why| {
        format!("invalid value for \"--endpoints\"{}: {why}", taken_from("ETCDCTL_ENDPOINTS", &endpoints))
    })?;
    let login = login(user, password_file)?;
    if login.is_some() && urls.iter().any(|endpoint| is_plain_and_remote(endpoint)) {
        warnings.push("the password goes over http to another machine: use https".to_owned());
    }
    let etcd = etcd::Options { endpoints: urls, tls, login, request_timeout };
    Ok(Invocation { log, log_format, etcd, prefix, warnings, verb })
}

/// The host that `announce` takes from its variable.
fn announced_host() -> Result<Option<Host>, String> {
    const NAME: &str = "CRATE_DISCOVERY_HOST";
    let Some(name) = env::var_os(NAME).filter(|name| !name.is_empty()) else { return Ok(None) };
    let name = name.to_string_lossy();
    values::host(&name).map(Some).map_err(|why| format!("invalid value {name:?} for {NAME}: {why}"))
}

/// Says that `value` is that of a variable, if it is.
fn taken_from(name: &str, value: &str) -> String {
    match env::var(name) {
        Ok(set) if set == value => format!(", taken from {name}"),
        _ => String::new(),
    }
}

/// The user and the first source of a password, in the order of the contract.
fn login(user: Option<String>, password_file: Option<PathBuf>) -> Result<Option<Login>, String> {
    let Some(user) = user else {
        return match password_file {
            Some(_) => {
                Err("\"--password-file\" is given without \"--user\": allowed is both or none".to_owned())
            }
            None => Ok(None),
        };
    };
    let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let (user, in_user) = match user.split_once(':') {
        None => (user, None),
        // Only from the variable: a command line is in `ps` for everybody.
        Some((name, password)) if variable("ETCDCTL_USER").is_some_and(|value| value == user) => {
            (name.to_owned(), Some(password.to_owned()).filter(|password| !password.is_empty()))
        }
        Some(_) => {
            return Err("invalid value for \"--user\": allowed is a name without a colon; \
                        the password goes into \"--password-file\" or ETCDCTL_PASSWORD"
                .to_owned());
        }
    };
    if user.is_empty() {
        return Err("missing value for \"--user\": allowed is the name of a user of etcd".to_owned());
    }
    let credential = variable("CREDENTIALS_DIRECTORY")
        .map(|directory| PathBuf::from(directory).join("etcd-password"))
        .filter(|path| path.exists());
    let password = match (password_file, credential) {
        (Some(path), _) => Password::File(path, "--password-file"),
        (None, Some(path)) => Password::File(path, "$CREDENTIALS_DIRECTORY/etcd-password"),
        (None, None) => match variable("ETCDCTL_PASSWORD").or(in_user) {
            Some(password) => Password::Literal(Secret(password)),
            None => {
                return Err(format!(
                    "\"--user\" {user:?} has no password: set \"--password-file\", or ETCDCTL_PASSWORD"
                ));
            }
        },
    };
    Ok(Some(Login { user, password }))
}

fn is_plain_and_remote(endpoint: &str) -> bool {
    let Some(authority) = endpoint.strip_prefix("http://") else { return false };
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host).trim_matches(['[', ']']);
    match host.parse::<IpAddr>() {
        Ok(ip) => !ip.is_loopback(),
        Err(_) => host != "localhost",
    }
}
