//! The flags of the feeds, which are the same for `announce` and `watch`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Command};

use super::values::{duration, srv_address, srv_name};
use crate::feeds::{self, srv::name::ServiceName};

#[derive(Debug, Args)]
#[command(next_help_heading = "Feeds")]
pub(super) struct Feeds {
    /// Keep CrateDB's unicast_hosts.txt current (discovery.seed_providers=file)
    #[arg(long, value_name = "FILE")]
    pub seed_file: Option<PathBuf>,
    /// Rewrite the file instead of replacing it: where it is mounted alone
    #[arg(long)]
    pub seed_file_in_place: bool,
    /// Answer DNS SRV there, over UDP and TCP (discovery.seed_providers=srv)
    #[arg(long, value_name = "ADDR:PORT", value_parser = srv_address)]
    pub srv: Option<SocketAddr>,
    /// What it is asked for [default: _crate._tcp.crate.local]
    #[arg(long, value_name = "NAME", default_value_t, hide_default_value = true, value_parser = srv_name)]
    pub srv_name: ServiceName,
    /// How long a host that is missing after an outage stays
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub hold: Duration,
}

/// The variables of `announce`. `watch` has none: a variable that was left over must not change what a script prints.
const VARIABLES: [(&str, &str); 5] = [
    ("seed_file", "CRATE_DISCOVERY_SEED_FILE"),
    ("seed_file_in_place", "CRATE_DISCOVERY_SEED_FILE_IN_PLACE"),
    ("srv", "CRATE_DISCOVERY_SRV"),
    ("srv_name", "CRATE_DISCOVERY_SRV_NAME"),
    ("hold", "CRATE_DISCOVERY_HOLD"),
];

/// Adds the variables to the flags of `announce` in `command`.
pub(super) fn with_variables(command: Command) -> Command {
    command.mut_subcommand("announce", |announce| {
        announce.mut_args(|arg| match VARIABLES.iter().find(|(flag, _)| arg.get_id() == flag) {
            Some((_, variable)) => arg.env(*variable).hide_env(true),
            None => arg,
        })
    })
}

impl Feeds {
    /// Checks that the flags fit together.
    pub(super) fn validate(self) -> Result<feeds::Feeds, String> {
        let Self { seed_file, seed_file_in_place, srv, srv_name, hold } = self;
        if seed_file_in_place && seed_file.is_none() {
            return Err("\"--seed-file-in-place\" is given without \"--seed-file\": allowed is both or none"
                .to_owned());
        }
        Ok(feeds::Feeds { seed_file, seed_file_in_place, srv, srv_name, hold })
    }
}
