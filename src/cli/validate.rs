//! Turns the flags into options that fit together.

use std::{env, path::PathBuf, time::Duration};

use super::{Invocation, Verb, args, values, variables};
use crate::{
    announcement::Announcement,
    credentials::{Login, Password, Secret},
    etcd::{self, Endpoint, TlsFiles, parse_endpoints},
    host::Host,
    node::{Credentials, check::Check, gate},
    verbs::{
        announce, bootstrap, hosts,
        status::{self, Whom},
        watch,
    },
};

/// The default of `--timeout` in `hosts --wait-for`.
const DEFAULT_WAIT: Duration = Duration::from_secs(60);

/// Validates `cli`. `warnings` and those that are found here are logged at the start. The error is one sentence.
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
            check_user,
            check_password_file,
            cluster_name,
            rise,
            fall,
            stop_timeout,
            state_dir,
            feeds,
            connection,
        }) => {
            let checks: Vec<Check> =
                check.iter().map(|url| url.trim().parse()).collect::<Result<_, _>>().map_err(
                    |why: String| {
                        let from = taken_from("CRATE_DISCOVERY_CHECK", &check.join(","));
                        format!("invalid value for \"--check\"{from}: {why}")
                    },
                )?;
            let credentials = check_login(check_user, check_password_file)?;
            for (flag, given) in
                [("--check-user", credentials.is_some()), ("--cluster-name", cluster_name.is_some())]
            {
                if given && !checks.iter().any(Check::asks_cratedb) {
                    return Err(format!(
                        "\"{flag}\" is given without a check that asks CrateDB: allowed is it with a \"--check\" of \
                         crate:// or crate+https://"
                    ));
                }
            }
            if credentials.is_some() {
                warnings.extend(checks.iter().filter_map(tells_a_password));
            }
            let gate = gate::Settings {
                checks,
                interval: check_interval,
                timeout: check_timeout,
                rise,
                fall,
                credentials,
                cluster: cluster_name,
            };
            warnings.extend(judge_target(host.as_ref(), address.as_ref())?);
            let announcement = Announcement { http, transport, psql, address };
            let feeds = feeds.validate()?;
            let options = announce::Options { host, announcement, ttl, gate, stop_timeout, state_dir, feeds };
            (connection, Verb::Announce(options))
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
            let within = timeout.or(wait_for.map(|_| DEFAULT_WAIT));
            let wait_for = wait_for.map(|hosts| hosts as usize);
            let options = hosts::Options { format, port, exclude, output, allow_stale, wait_for, within };
            (connection, Verb::Hosts(options))
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
            hold,
            state_dir,
            node_data,
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
                    bootstrap::Options::Agree(bootstrap::Agree {
                        expect,
                        name,
                        within,
                        wait,
                        hold,
                        state_dir,
                        node_data,
                        env,
                        output,
                    })
                }
                // Clap has made sure that both are given.
                _ => return Err("\"--expect\" and \"--node-name\" are missing: allowed is both".to_owned()),
            };
            (connection, Verb::Bootstrap(options))
        }
        args::Verb::Status(args::Status { format, host, own, connection }) => {
            let whom = match host {
                _ if own => Whom::OwnHost(announced_host()?),
                Some(host) => Whom::Host(host),
                None => Whom::All,
            };
            let options = status::Options { json: format == args::StatusFormat::Json, whom };
            (connection, Verb::Status(options))
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
    let [cacert, cert, key] = [cacert, cert, key].map(|path| path.map(variables::bare_path));
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
    if login.is_some() && urls.iter().any(is_plain_and_remote) {
        warnings.push("the password goes over http to another machine: use https".to_owned());
    }
    let etcd = etcd::Options { endpoints: urls, tls, login, request_timeout };
    Ok(Invocation { log, log_format, etcd, prefix, warnings, verb })
}

/// Checks the address at which others are told to connect. Returns a warning about it, if there is one.
fn judge_target(host: Option<&Host>, address: Option<&Host>) -> Result<Option<String>, String> {
    let (flag, target) = match (host, address) {
        // Both values were checked alone before.
        (_, Some(address)) => ("--address", address),
        (Some(host), None) => ("--host", host),
        (None, None) => return Ok(None),
    };
    target.judge_joinable().map_err(|why| {
        let target = target.as_str();
        format!("invalid value {target:?} for \"{flag}\": {why}; set \"--address\": {}", values::JOINABLE)
    })?;
    Ok(target.is_link_local().then(|| {
        format!("{flag} {target} is a link-local address, where at most the nodes on one link can connect: set --address")
    }))
}

/// The host that `announce` would take from its variable.
fn announced_host() -> Result<Option<Host>, String> {
    const NAME: &str = "CRATE_DISCOVERY_HOST";
    let Some(name) = env::var_os(NAME).filter(|name| !name.is_empty()) else { return Ok(None) };
    let name = name.to_string_lossy();
    values::own_host(&name).map(Some).map_err(|why| format!("invalid value {name:?} for {NAME}: {why}"))
}

/// A note that `value` came from the variable `name`, if it did; otherwise empty.
fn taken_from(name: &str, value: &str) -> String {
    match env::var(name) {
        Ok(set) if set == value => format!(", taken from {name}"),
        _ => String::new(),
    }
}

/// The user, and the first source of a password, in the order of `docs/design.md`, "Connection and timing".
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
    let is_of_variable = variable("ETCDCTL_USER").is_some_and(|value| value == user);
    let user = if is_of_variable { variables::bare(&user).to_owned() } else { user };
    let (user, in_user) = match user.split_once(':') {
        None => (user, None),
        // A password after the user is allowed only in the variable, because everybody can see a command line in `ps`.
        Some((name, password)) if is_of_variable => {
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
    Ok(Some(Login::new(user, password)))
}

/// The user and the password file of the checks.
fn check_login(user: Option<String>, password_file: Option<PathBuf>) -> Result<Option<Credentials>, String> {
    match (user, password_file) {
        (None, None) => Ok(None),
        (Some(_), None) => {
            Err("\"--check-user\" is given without \"--check-password-file\": allowed is both or none"
                .to_owned())
        }
        (None, Some(_)) => {
            Err("\"--check-password-file\" is given without \"--check-user\": allowed is both or none"
                .to_owned())
        }
        // RFC 7617 allows no colon in a user. The text after one may be a password, so it is not repeated.
        (Some(user), _) if user.is_empty() || user.contains(':') || user.contains(char::is_control) => Err(
            "invalid value for \"--check-user\": allowed is a name without a colon; the password goes into \
                 \"--check-password-file\""
                .to_owned(),
        ),
        (Some(user), Some(password_file)) => Ok(Some(Credentials { user, password_file })),
    }
}

/// The warning about a check that sends a password to another machine, if it does.
fn tells_a_password(check: &Check) -> Option<String> {
    match (check.asks_cratedb() && check.is_remote(), check.is_encrypted()) {
        (true, false) => Some(format!(
            "the password of check {check} goes in clear to another machine: use crate+https://"
        )),
        (true, true) => Some(format!(
            "the password of check {check} goes to another machine, and a check judges no certificate: ask the node \
             from its own machine"
        )),
        (false, _) => None,
    }
}

fn is_plain_and_remote(endpoint: &Endpoint) -> bool {
    let host = endpoint.host();
    let is_loopback = host.ip().map_or(host.as_str() == "localhost", |ip| ip.is_loopback());
    !endpoint.is_https() && !is_loopback
}
