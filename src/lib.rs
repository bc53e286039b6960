//! Keeps a CrateDB host announced in etcd exactly while it can be joined.
//!
//! # Map of the house
//!
//! | module | what it knows |
//! | --- | --- |
//! | [`cli`] | the command line; the only user of clap |
//! | [`exit`] | exit codes and what leads to each |
//! | [`announcer`] | the announcer: a pure state machine, the shell around it, and what it notes of its node |
//! | [`node`] | what we ask our own CrateDB: checks, the gate |
//! | [`bootstrap`] | who may elect the first master: the rules, pure, and the host's notes on its disk |
//! | [`verbs`] | the other verbs, thin |
//! | [`feeds`] | what CrateDB reads anew in every round, kept current: the seed file, the SRV answers |
//! | [`etcd`] | presence in etcd; the only user of `etcd_client` |
//! | `file` | writes a file: replaced as a whole, or rewritten in place |
//! | [`render`] | a snapshot as csv, lines, json, env |
//! | [`snapshot`], [`announcement`], [`host`] | what is announced |
//! | [`names`] | addresses of names, looked up beside whatever needs them |
//! | `backoff`, `budget`, [`text`], `thread` | small tools |
//! | [`process`] | signals, logging and systemd: what `main` injects |
//!
//! `main` may use everything; `verbs` use `feeds`; `verbs`, `feeds` and `announcer` use `file`, `etcd` and `render`;
//! `announcer` reads what `node` reports; `node` uses `names`, and of `etcd` how a password is read;
//! `etcd` uses `bootstrap` (whose rules name its lease ids), `snapshot`, `announcement`, `host`, `names`, `backoff` and
//! `budget`; `feeds` and `render` use `snapshot`.
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
