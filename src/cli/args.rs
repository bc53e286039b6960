//! The flags and their texts in `--help`. A value that may hold a secret is taken as it is and checked in
//! [`super::validate`], because clap repeats a value that it rejects.

use std::{num::NonZeroU16, path::PathBuf, time::Duration};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, builder::PossibleValue};
use tracing_subscriber::filter::Targets;

use super::LogFormat;
use super::feed_flags::Feeds;
use super::values::{
    address, cluster, count, duration, expect, host, log_filter, own_host, port, prefix, ttl,
};
use crate::{announcement::Port, host::Host, render::Format};

/// Keeps a CrateDB host announced in etcd exactly while it can be joined, and lists the hosts
#[derive(Debug, Parser)]
#[command(name = "crate-discovery", version, disable_help_subcommand = true, after_help = EXIT_CODES)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
}

const EXIT_CODES: &str = "\
Exit codes:
  0    done (also when the reader of our output closed it)
  1    unexpected
  2    a flag or variable is rejected
  3    status: the host is not announced
  69   etcd unavailable in time, --wait-for or --expect not met, or a withdrawal not confirmed
  77   etcd refused us: login or permission (announce and watch try on instead)
  78   a file or the host's state is unusable, or bootstrap needs a human
  128+n  ended by signal n (announce and watch: by the second one)";

// If each flag showed its variable, `--help` would be twice as wide as a terminal.
const ANNOUNCE_VARIABLES: &str = "\
The options above are also variables: --check-interval is CRATE_DISCOVERY_CHECK_INTERVAL, and so on.
Of the connection: CRATE_DISCOVERY_PASSWORD_FILE, CRATE_DISCOVERY_PREFIX,
CRATE_DISCOVERY_REQUEST_TIMEOUT, CRATE_DISCOVERY_LOG, CRATE_DISCOVERY_LOG_FORMAT.
A flag beats a variable. The password is taken from --password-file,
$CREDENTIALS_DIRECTORY/etcd-password, ETCDCTL_PASSWORD or ETCDCTL_USER, in this order.";

const READER_VARIABLES: &str = "\
More variables of the connection: CRATE_DISCOVERY_PASSWORD_FILE, CRATE_DISCOVERY_PREFIX,
CRATE_DISCOVERY_REQUEST_TIMEOUT, CRATE_DISCOVERY_LOG, CRATE_DISCOVERY_LOG_FORMAT.
A flag beats a variable. The password is taken from --password-file,
$CREDENTIALS_DIRECTORY/etcd-password, ETCDCTL_PASSWORD or ETCDCTL_USER, in this order.";

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Keep this host's announcement in etcd until SIGTERM or SIGINT, then withdraw it
    #[command(after_help = ANNOUNCE_VARIABLES)]
    Announce(Announce),
    /// Print the announced hosts once
    #[command(after_help = READER_VARIABLES)]
    Hosts(Hosts),
    /// Follow the announced hosts until SIGTERM or SIGINT: print them at each change
    #[command(after_help = READER_VARIABLES)]
    Watch(Watch),
    /// Agree, once per cluster, on the nodes that may elect the first master
    #[command(after_help = READER_VARIABLES)]
    Bootstrap(Bootstrap),
    /// Show who is announced, under which lease; with a host, check its health
    #[command(after_help = READER_VARIABLES)]
    Status(Status),
}

#[derive(Debug, Args)]
pub(super) struct Announce {
    /// Name of the key [default: the system's host name]
    #[arg(long, env = "CRATE_DISCOVERY_HOST", hide_env = true, value_parser = own_host)]
    pub host: Option<Host>,
    /// CrateDB's HTTP port
    #[arg(long, value_name = "PORT", env = "CRATE_DISCOVERY_HTTP", hide_env = true, default_value = "4200", value_parser = port)]
    pub http: NonZeroU16,
    /// CrateDB's transport port
    #[arg(long, value_name = "PORT", env = "CRATE_DISCOVERY_TRANSPORT", hide_env = true, default_value = "4300", value_parser = port)]
    pub transport: NonZeroU16,
    /// CrateDB's PostgreSQL port, to announce it too
    #[arg(long, value_name = "PORT", env = "CRATE_DISCOVERY_PSQL", hide_env = true, value_parser = port)]
    pub psql: Option<NonZeroU16>,
    /// Where to connect, when it is not the host's name
    #[arg(long, value_name = "HOST", env = "CRATE_DISCOVERY_ADDRESS", hide_env = true, value_parser = address)]
    pub address: Option<Host>,
    /// How long the key outlives a crash, 5s to 24h
    #[arg(long, value_name = "TIME", env = "CRATE_DISCOVERY_TTL", hide_env = true, default_value = "60s", value_parser = ttl)]
    pub ttl: Duration,
    /// crate[+https]://host[:port], tcp://, http(s)://; may repeat
    #[arg(long, value_name = "URL", env = "CRATE_DISCOVERY_CHECK", hide_env = true, value_delimiter = ',', action = ArgAction::Append)]
    pub check: Vec<String>,
    /// From one probe to the next
    #[arg(long, value_name = "TIME", env = "CRATE_DISCOVERY_CHECK_INTERVAL", hide_env = true, default_value = "2s", value_parser = duration)]
    pub check_interval: Duration,
    /// Longest time for one check
    #[arg(long, value_name = "TIME", env = "CRATE_DISCOVERY_CHECK_TIMEOUT", hide_env = true, default_value = "1s", value_parser = duration)]
    pub check_timeout: Duration,
    /// User of CrateDB for the crate:// checks
    #[arg(long, value_name = "NAME", env = "CRATE_DISCOVERY_CHECK_USER", hide_env = true)]
    pub check_user: Option<String>,
    /// The check user's password, read anew for each probe
    #[arg(long, value_name = "FILE", env = "CRATE_DISCOVERY_CHECK_PASSWORD_FILE", hide_env = true)]
    pub check_password_file: Option<PathBuf>,
    /// CrateDB's cluster.name; another cluster's node is a bad one
    #[arg(long, value_name = "NAME", env = "CRATE_DISCOVERY_CLUSTER_NAME", hide_env = true, value_parser = cluster)]
    pub cluster_name: Option<String>,
    /// Good probes in a row until announced
    #[arg(long, value_name = "N", env = "CRATE_DISCOVERY_RISE", hide_env = true, default_value = "1", value_parser = count)]
    pub rise: u32,
    /// Bad probes in a row until withdrawn
    #[arg(long, value_name = "N", env = "CRATE_DISCOVERY_FALL", hide_env = true, default_value = "3", value_parser = count)]
    pub fall: u32,
    /// Longest time for the withdrawal
    #[arg(long, value_name = "TIME", env = "CRATE_DISCOVERY_STOP_TIMEOUT", hide_env = true, default_value = "5s", value_parser = duration)]
    pub stop_timeout: Duration,
    /// Where to note, for bootstrap, that the node is in a cluster
    #[arg(long, value_name = "DIR", env = "CRATE_DISCOVERY_STATE_DIR", hide_env = true)]
    pub state_dir: Option<PathBuf>,
    #[command(flatten)]
    pub feeds: Feeds,
    #[command(flatten)]
    pub connection: Connection,
}

// The verbs that read have no variables of their own: a variable that was left over must not change what a script
// prints.
#[derive(Debug, Args)]
pub(super) struct Hosts {
    /// csv, lines, json or env
    #[arg(long, value_enum, default_value_t, hide_possible_values = true)]
    pub format: Format,
    /// transport, http or psql; hosts without it are left out
    #[arg(long, value_enum, default_value_t, hide_possible_values = true)]
    pub port: Port,
    /// Leave out this host; may repeat
    #[arg(long, value_name = "HOST", action = ArgAction::Append, value_parser = host)]
    pub exclude: Vec<Host>,
    /// Replace this file, on change only, instead of printing
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Leave the file as it is and exit 0 when etcd cannot be read
    #[arg(long, requires = "output")]
    pub allow_stale: bool,
    /// Wait until there are N hosts
    #[arg(long, value_name = "N", value_parser = count)]
    pub wait_for: Option<u32>,
    /// Longest time for all of it [default: 60s with --wait-for, else none]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,
    #[command(flatten)]
    pub connection: Connection,
}

// `bootstrap` has no variables of its own either, for the same reason.
#[derive(Debug, Args)]
pub(super) struct Bootstrap {
    /// How many nodes may elect, the same on each; 0 is none: etcd is not asked
    #[arg(long, value_name = "N", required_unless_present_any = ["show", "reset"], value_parser = expect)]
    pub expect: Option<u32>,
    /// This node's node.name in CrateDB
    #[arg(long, value_name = "NAME", required_unless_present_any = ["show", "reset"], value_parser = host)]
    pub node_name: Option<Host>,
    /// Longest time to the answer
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub timeout: Duration,
    /// text (the names) or env (CRATE_BOOTSTRAP_FLAGS=)
    #[arg(long, value_enum, default_value_t, hide_possible_values = true)]
    pub format: BootstrapFormat,
    /// Replace this file instead of printing; without an answer it names nobody
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Wait for ever for the others and etcd; --timeout is for a node with data
    #[arg(long, requires = "expect")]
    pub wait: bool,
    /// How long all have to be there; 3 times that if etcd failed
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub hold: Duration,
    /// Where the host notes that its node is in a cluster, as of announce
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// CrateDB's path.data: a node that has data starts also while etcd is away
    #[arg(long, value_name = "DIR")]
    pub node_data: Option<PathBuf>,
    /// Show what is stored
    #[arg(long, conflicts_with_all = ["expect", "node_name", "output", "reset"])]
    pub show: bool,
    /// With all nodes stopped: forget list and cluster
    #[arg(long, conflicts_with_all = ["expect", "node_name", "output"])]
    pub reset: bool,
    /// Confirm --reset
    #[arg(long, requires = "reset")]
    pub yes: bool,
    #[command(flatten)]
    pub connection: Connection,
}

/// How the answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum BootstrapFormat {
    #[default]
    Text,
    Env,
}

#[derive(Debug, Args)]
pub(super) struct Watch {
    /// csv, lines, json or env; after lines and env a blank line
    #[arg(long, value_enum, default_value_t, hide_possible_values = true)]
    pub format: Format,
    /// transport, http or psql; hosts without it are left out
    #[arg(long, value_enum, default_value_t, hide_possible_values = true)]
    pub port: Port,
    /// Leave out this host; may repeat
    #[arg(long, value_name = "HOST", action = ArgAction::Append, value_parser = host)]
    pub exclude: Vec<Host>,
    /// Keep this file current; with it, or with a feed, nothing is printed
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub feeds: Feeds,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(Debug, Args)]
pub(super) struct Status {
    /// text (a table on a terminal, tabs elsewhere) or json
    #[arg(long, value_enum, default_value_t, hide_possible_values = true)]
    pub format: StatusFormat,
    /// Show this host only; exit 3 when it is not announced
    #[arg(long, value_parser = host)]
    pub host: Option<Host>,
    /// As --host, for the host of announce; exit 0 also when etcd does not answer
    #[arg(long = "self", conflicts_with = "host")]
    pub own: bool,
    #[command(flatten)]
    pub connection: Connection,
}

/// How the status is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum StatusFormat {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(super) struct Connection {
    /// Etcd URLs
    #[arg(
        long,
        value_name = "URL,…",
        env = "ETCDCTL_ENDPOINTS",
        hide_env_values = true,
        default_value = "http://127.0.0.1:2379"
    )]
    pub endpoints: String,
    /// PEM roots to trust [default: the system's]
    #[arg(long, value_name = "FILE", env = "ETCDCTL_CACERT", hide_env_values = true)]
    pub cacert: Option<PathBuf>,
    /// PEM client certificate
    #[arg(long, value_name = "FILE", env = "ETCDCTL_CERT", hide_env_values = true)]
    pub cert: Option<PathBuf>,
    /// PEM key of --cert
    #[arg(long, value_name = "FILE", env = "ETCDCTL_KEY", hide_env_values = true)]
    pub key: Option<PathBuf>,
    /// Etcd's user; the variable may be name:password
    #[arg(long, value_name = "NAME", env = "ETCDCTL_USER", hide_env_values = true)]
    pub user: Option<String>,
    /// The user's password, read anew at every login
    #[arg(long, value_name = "FILE", env = "CRATE_DISCOVERY_PASSWORD_FILE", hide_env = true)]
    pub password_file: Option<PathBuf>,
    /// Where in etcd, one for each cluster
    #[arg(long, env = "CRATE_DISCOVERY_PREFIX", hide_env = true, default_value = "/services/crate", value_parser = prefix)]
    pub prefix: String,
    /// Longest wait for one answer
    #[arg(long, value_name = "TIME", env = "CRATE_DISCOVERY_REQUEST_TIMEOUT", hide_env = true, default_value = "5s", value_parser = duration)]
    pub request_timeout: Duration,
    /// off, error, warn, info, debug or trace
    #[arg(long, value_name = "FILTER", env = "CRATE_DISCOVERY_LOG", hide_env = true, default_value = "info", value_parser = log_filter)]
    pub log: Targets,
    /// How to write the log: text or json
    #[arg(
        long,
        value_enum,
        value_name = "FORMAT",
        env = "CRATE_DISCOVERY_LOG_FORMAT",
        hide_env = true,
        hide_possible_values = true,
        default_value_t
    )]
    pub log_format: LogFormat,
}

impl ValueEnum for Format {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Csv, Self::Lines, Self::Json, Self::Env]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::Csv => "csv",
            Self::Lines => "lines",
            Self::Json => "json",
            Self::Env => "env",
        }))
    }
}

impl ValueEnum for Port {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Transport, Self::Http, Self::Psql]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::Transport => "transport",
            Self::Http => "http",
            Self::Psql => "psql",
        }))
    }
}

impl ValueEnum for LogFormat {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Text, Self::Json]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::Text => "text",
            Self::Json => "json",
        }))
    }
}
