//! Keeps a CrateDB host announced in etcd exactly while it can be joined.
//!
//! # Map of the house
//!
//! Each room stands above those that it imports, and none imports one above it. `tests/house` compares this table with
//! the source, and fails where a room imports what the table does not tell.
//!
//! | room | what it knows | what it imports |
//! | --- | --- | --- |
//! | [`exit`] | exit codes, and what leads to each | `announcer` `bootstrap` `etcd` `file` `host` `verbs` |
//! | [`cli`] | the command line and the variables; the only user of clap | `announcement` `credentials` `etcd` `feeds` `host` `node` `render` `verbs` |
//! | [`verbs`] | one file a verb, which wires rooms together | `announcement` `announcer` `backoff` `bootstrap` `etcd` `feeds` `file` `host` `names` `node` `process` `render` `snapshot` `text` `thread` |
//! | [`announcer`] | how one host is kept announced: a pure state machine, the loop around it, and what it notes of its node | `bootstrap` `budget` `etcd` `lease` `node` `text` |
//! | [`feeds`] | what CrateDB reads anew in every round, kept current: the seed file, and the SRV answers | `announcement` `backoff` `etcd` `file` `host` `snapshot` `text` `thread` |
//! | [`etcd`] | the connection to etcd, and what is asked over it; the only user of `etcd_client` | `announcement` `backoff` `bootstrap` `budget` `credentials` `host` `lease` `names` `snapshot` `text` `thread` |
//! | [`bootstrap`] | who may elect the first master: the rules, which are pure, and the host's notes on its disk | `file` `host` `lease` `text` `thread` |
//! | [`node`] | what we ask our own CrateDB: the checks, and the gate | `budget` `credentials` `host` `names` `text` `thread` |
//! | [`process`] | signals, logging and systemd: the process as the outside sees it | |
//! | `file` | how a file is written: replaced as a whole, or rewritten in place | `text` |
//! | `credentials` | files that let us in, and the password | `text` |
//! | [`names`] | the addresses of names, looked up beside whatever needs them | `host` `text` |
//! | [`render`] | a snapshot as csv, lines, json or env | `announcement` `snapshot` |
//! | [`snapshot`] | all announcements at one revision | `announcement` `host` |
//! | [`announcement`] | the value of a key | `host` |
//! | [`lease`] | what can be known of a key and its lease | |
//! | [`host`] | the name or the address of a host | |
//! | [`text`] | what may be shown of bytes from elsewhere, and errors in plain words | |
//! | `backoff`, `budget`, `thread` | how long to wait, how often at most, and where to do what may block | |
//!
//! `main` uses `cli`, `exit`, `names`, `process` and `verbs`. The rooms without I/O, such as `lease`, `announcer::state`
//! or the rules in `bootstrap`, import only rooms without I/O; the same tests prove it.
//!
//! # Words
//!
//! A *node* is one CrateDB process on one host. Its *announcement* is the key `<prefix>/<host>` with
//! a JSON value. A *session* is one lease; the announcement is attached to it. The *holder* is the
//! lease that the announcement is attached to now, which may be another process's. A *snapshot* is
//! all announcements of a prefix at one revision. To *withdraw* is to revoke our lease.
//!
//! # What always holds
//!
//! The key is there exactly while the node can be joined: never missing because etcd hiccupped,
//! never left behind after a clean stop, never somebody else's. A failed read is never an empty
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
