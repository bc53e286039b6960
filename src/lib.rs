//! Keeps a CrateDB host announced in etcd exactly while it can be joined.
//!
//! # Map of the house
//!
//! A *room* is a top-level module. A room imports only rooms that stand below it in this table. `tests/house` compares
//! the table with the source, and fails if a room imports something that its line does not name.
//!
//! | room | what it knows | what it imports |
//! | --- | --- | --- |
//! | [`exit`] | the exit codes, and which error leads to which code | `announcer` `bootstrap` `etcd` `file` `host` `verbs` |
//! | [`cli`] | the command line and the variables; the only user of clap | `announcement` `credentials` `etcd` `feeds` `host` `node` `render` `verbs` |
//! | [`verbs`] | one file for each verb; it connects rooms to each other | `announcement` `announcer` `backoff` `bootstrap` `etcd` `feeds` `file` `host` `names` `node` `process` `render` `snapshot` `text` `thread` |
//! | [`announcer`] | how one host is kept announced: a pure state machine, the loop around it, and the notes about its node | `bootstrap` `budget` `etcd` `lease` `node` `text` |
//! | [`feeds`] | the feeds that CrateDB reads again in each round of its discovery: the seed file, and the SRV answers | `announcement` `backoff` `etcd` `file` `host` `snapshot` `text` `thread` |
//! | [`etcd`] | the connection to etcd, and what is asked over it; the only user of `etcd_client` | `announcement` `backoff` `bootstrap` `budget` `credentials` `host` `lease` `names` `snapshot` `text` `thread` |
//! | [`bootstrap`] | which nodes may elect the first master: the rules, which are pure, and the notes on the disk of the host | `file` `host` `lease` `text` `thread` |
//! | [`node`] | what we ask our own CrateDB: the checks, and the gate | `budget` `credentials` `host` `names` `text` `thread` |
//! | [`process`] | signals, logging, and systemd | |
//! | `file` | how a file is written: replaced as a whole, or rewritten in place | `text` |
//! | `credentials` | the files with a certificate, a key or a password | `text` |
//! | [`names`] | looks up the addresses of names, each on a thread of its own | `host` `text` |
//! | [`render`] | a snapshot as csv, lines, json or env | `announcement` `snapshot` |
//! | [`snapshot`] | all announcements at one revision | `announcement` `host` |
//! | [`announcement`] | the value of a key | `host` |
//! | [`lease`] | what can be known of a key and its lease | |
//! | [`host`] | the name or the address of a host | |
//! | [`text`] | how bytes from elsewhere are shown, and errors in plain words | |
//! | `backoff`, `budget`, `thread` | how long to wait, how often something may happen, and threads for work that may block | |
//!
//! `main` uses `cli`, `exit`, `names`, `process` and `verbs`. The rooms without I/O, such as `lease`,
//! `announcer::state` or the rules in `bootstrap`, import only rooms without I/O. `tests/house` checks that, too.
//!
//! # Words
//!
//! A *node* is one CrateDB process on one host. Its *announcement* is the key `<prefix>/<host>` with a JSON value. A
//! *session* is one lease of ours; the announcement is attached to it. The *holder* is the lease that the announcement
//! is attached to now; it may belong to another process. A *snapshot* is all announcements of a prefix at one revision.
//! To *withdraw* is to remove our announcement by revoking our lease. `docs/design.md`, "Words", has all of them.
//!
//! # What always holds
//!
//! The key exists exactly while the node can be joined. It does not disappear because etcd fails for a moment. It does
//! not stay after a clean stop. We never remove the key of another process. A read that failed never counts as an empty
//! list. Every remote call has a deadline, on a monotonic clock.

pub mod announcement;
pub mod announcer;
mod backoff;
pub mod bootstrap;
mod budget;
pub mod cli;
mod credentials;
pub mod etcd;
pub mod exit;
pub mod feeds;
mod file;
pub mod host;
pub mod lease;
pub mod names;
pub mod node;
pub mod process;
pub mod render;
pub mod snapshot;
pub mod text;
mod thread;
pub mod verbs;
