//! The outside witness of a cluster: what every member says of one key, told by a watch on each and
//! by asking each over and over.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use etcd_client::{Client, ConnectOptions, GetOptions};
use tokio::{runtime::Builder, sync::oneshot, time};

use super::{PATIENCE, etcd::Etcd, eventually, observer::Observer};

/// How often each member is asked. The watches hear of shorter absences.
const EVERY: Duration = Duration::from_millis(50);
/// A member that is killed or frozen is asked again after this long.
const NO_ANSWER: Duration = Duration::from_millis(500);

/// What a member said of the key.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// Which member.
    by: usize,
    /// When it told us.
    at: Instant,
    /// The newest revision that it knows, or that of the event.
    revision: i64,
    present: bool,
}

/// The key was not there.
#[derive(Clone, Copy, Debug)]
pub struct Absence {
    /// When we heard of it.
    pub from: Instant,
    /// When it was there again, or the time of the question.
    pub to: Instant,
}

impl Absence {
    /// How long.
    pub fn length(&self) -> Duration {
        self.to - self.from
    }
}

/// Follows one key on all members until it is dropped. After all members lost their data, start
/// another.
pub struct Witness {
    key: String,
    observers: Vec<Observer>,
    samples: Arc<Mutex<Vec<Sample>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Witness {
    /// Begins to watch and to ask `members`.
    pub fn start(members: &[Etcd], key: &str) -> Self {
        let samples = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = oneshot::channel();
        let (urls, asked, into) =
            (members.iter().map(Etcd::url).collect::<Vec<_>>(), key.to_owned(), Arc::clone(&samples));
        let thread = std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                for (by, url) in urls.into_iter().enumerate() {
                    tokio::spawn(ask(by, url, asked.clone(), Arc::clone(&into)));
                }
                let _ = stopped.await;
            });
        });
        let observers = members.iter().map(Observer::start).collect();
        Self { key: key.to_owned(), observers, samples, stop: Some(stop), thread: Some(thread) }
    }

    /// Whenever the key was not there, from its first appearance up to now.
    ///
    /// What counts is what is told of a revision newer than that of the first appearance: a member
    /// that lags behind and has not seen the key yet is no evidence.
    pub fn absences(&self) -> Vec<Absence> {
        let mut samples = self.samples.lock().unwrap().clone();
        for (by, observer) in self.observers.iter().enumerate() {
            let told = observer.heard(&self.key).into_iter();
            samples.extend(told.map(|e| Sample { by, at: e.at, revision: e.revision, present: e.put }));
        }
        absences(samples, Instant::now())
    }

    /// The longest of [`Witness::absences`]; zero when there is none.
    pub fn worst_absence(&self) -> Duration {
        self.absences().iter().map(Absence::length).max().unwrap_or_default()
    }

    /// Waits until the watch of every member has told everything, and holds that all tell the same.
    /// Gives the history as (whether it is a PUT, lease).
    #[track_caller]
    pub fn history(&self) -> Vec<(bool, i64)> {
        let told = |observer: &Observer| -> Vec<(bool, i64)> {
            observer.history(&self.key).iter().map(|event| (event.put, event.lease)).collect()
        };
        let first = told(&self.observers[0]);
        for other in &self.observers[1..] {
            assert_eq!(told(other), first, "the members tell different stories");
        }
        first
    }

    /// Waits until every member has answered since now.
    #[track_caller]
    pub fn asks_everybody(&self) {
        let start = Instant::now();
        eventually("every member answers", PATIENCE, || {
            let samples = self.samples.lock().unwrap();
            let fresh = samples.iter().rev().take_while(|sample| sample.at > start);
            let by: BTreeSet<usize> = fresh.map(|sample| sample.by).collect();
            if by.len() == self.observers.len() { Ok(()) } else { Err(format!("only {by:?}")) }
        });
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.stop.take().map(|stop| stop.send(()));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Asks one member over and over how the key is, as far as this member knows.
async fn ask(by: usize, url: String, key: String, into: Arc<Mutex<Vec<Sample>>>) {
    let options = ConnectOptions::new().with_connect_timeout(NO_ANSWER);
    let mut client = Client::connect([&url], Some(options)).await.expect("connecting is lazy");
    loop {
        let options = GetOptions::new().with_serializable().with_keys_only();
        // No answer is no evidence: tests kill and freeze members on purpose.
        if let Ok(Ok(answer)) = time::timeout(NO_ANSWER, client.get(key.as_str(), Some(options))).await {
            let revision = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
            let at = Instant::now();
            into.lock().unwrap().push(Sample { by, at, revision, present: !answer.kvs().is_empty() });
        }
        time::sleep(EVERY).await;
    }
}

/// In the order of revisions, not of hearing: whether the key is there is a fact of the revision.
fn absences(mut samples: Vec<Sample>, now: Instant) -> Vec<Absence> {
    samples.sort_by_key(|sample| (sample.revision, sample.at));
    let mut found = Vec::new();
    let mut since: Option<Instant> = None;
    for sample in samples.iter().skip_while(|sample| !sample.present) {
        if sample.present {
            found.extend(since.take().map(|from| Absence { from, to: sample.at.max(from) }));
        } else {
            since = Some(since.map_or(sample.at, |from| from.min(sample.at)));
        }
    }
    found.extend(since.map(|from| Absence { from, to: now }));
    found
}

#[test]
fn a_member_that_lags_behind_is_no_evidence_of_an_absence() {
    let start = Instant::now();
    let sample =
        |ms, revision, present| Sample { by: 0, at: start + Duration::from_millis(ms), revision, present };
    let seen = vec![
        sample(0, 1, false),
        sample(10, 2, true),
        // A member that lags behind.
        sample(20, 1, false),
        sample(30, 3, false),
        sample(40, 2, true),
        sample(70, 4, true),
        sample(80, 5, false),
    ];
    let lengths: Vec<_> = absences(seen, start + Duration::from_millis(100))
        .iter()
        .map(|absence| absence.length().as_millis())
        .collect();
    assert_eq!(lengths, [40, 20]);
}
