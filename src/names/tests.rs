use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A name service that answers when the test says so, with what the test says. It also tells who was asked for.
struct Service {
    answers: Sender<io::Result<Vec<SocketAddr>>>,
    asked: Receiver<String>,
    names: Names,
    name: Host,
}

impl Service {
    fn start() -> Self {
        let (answers, next) = channel();
        let (ask, asked) = channel();
        let (next, ask) = (Mutex::new(next), Mutex::new(ask));
        let names = Names::looked_up_by(move |name| {
            ask.lock().unwrap().send(name.to_owned()).unwrap();
            next.lock().unwrap().recv().unwrap()
        });
        Self { answers, asked, names, name: "crate1".parse().unwrap() }
    }

    fn get_at(&self, now: Instant) -> Result<Vec<SocketAddr>, String> {
        self.names.get_at(&self.name, 4200, now).0.map_err(|unknown| unknown.to_string())
    }

    /// Ends the running lookup with `answer`, and waits until that has arrived.
    fn answer(&self, answer: io::Result<Vec<SocketAddr>>) {
        self.answers.send(answer).unwrap();
        while self.names.shared.entries()[&self.name].running {
            thread::yield_now();
        }
    }

    /// How many lookups have started since the last call. If one is running, it waits until that has asked the service.
    fn lookups(&self) -> usize {
        if self.names.shared.entries()[&self.name].running {
            self.asked.recv_timeout(20 * SECOND).unwrap();
            return 1 + self.asked.try_iter().count();
        }
        self.asked.try_iter().count()
    }
}

fn ip(text: &str) -> SocketAddr {
    SocketAddr::new(text.parse().unwrap(), 0)
}

fn at(text: &str) -> Vec<SocketAddr> {
    vec![SocketAddr::new(text.parse().unwrap(), 4200)]
}

#[test]
fn literal_is_known_without_a_lookup() {
    let names = Names::looked_up_by(|name| panic!("{name} is looked up"));
    for literal in ["127.0.0.1", "::1"] {
        assert_eq!(names.get(&literal.parse().unwrap(), 4200).unwrap(), at(literal));
    }
}

#[test]
fn name_is_looked_up_once_at_a_time_and_nobody_waits_for_it() {
    let (service, start) = (Service::start(), Instant::now());
    let pending = Err("the name crate1 is still being looked up".to_owned());
    for second in 0..100 {
        assert_eq!(service.get_at(start + second * SECOND), pending);
    }
    assert_eq!(service.lookups(), 1);
    service.answer(Ok(vec![ip("10.0.0.1")]));
    assert_eq!(service.get_at(Instant::now()), Ok(at("10.0.0.1")));
    assert_eq!(service.lookups(), 0);
}

#[test]
fn name_without_an_address_is_asked_for_again_after_a_while() {
    let service = Service::start();
    _ = service.get_at(Instant::now());
    service.answer(Err(io::Error::other("failed to lookup address information: Name or service not known")));
    let failed = Err("the name crate1 cannot be looked up: name or service not known".to_owned());
    let ended = Instant::now();
    assert_eq!(service.get_at(ended), failed);
    assert_eq!(service.lookups(), 1);
    assert_eq!(
        service.get_at(ended + PAUSE_WITHOUT),
        failed,
        "the last answer counts while it is asked again"
    );
    assert_eq!(service.lookups(), 1);
    service.answer(Ok(vec![]));
    let empty = Err("the name crate1 cannot be looked up: it has no address".to_owned());
    assert_eq!(service.get_at(Instant::now()), empty);
}

#[test]
fn kept_answer_is_replaced_by_a_good_one_only() {
    let service = Service::start();
    _ = service.get_at(Instant::now());
    service.answer(Ok(vec![ip("10.0.0.1")]));
    let mut now = Instant::now();
    for useless in [Ok(vec![]), Err(io::Error::other("no"))] {
        now += OLD;
        assert_eq!(service.get_at(now), Ok(at("10.0.0.1")));
        service.answer(useless);
        assert_eq!(service.get_at(now), Ok(at("10.0.0.1")));
    }
    assert_eq!(service.get_at(now + PAUSE), Ok(at("10.0.0.1")));
    service.answer(Ok(vec![ip("10.0.0.2")]));
    assert_eq!(service.get_at(now), Ok(at("10.0.0.2")));
}

#[test]
fn answer_is_asked_for_anew_when_it_is_old_or_doubted() {
    let service = Service::start();
    _ = service.get_at(Instant::now());
    service.answer(Ok(vec![ip("10.0.0.1")]));
    assert_eq!(service.lookups(), 1);
    let ended = Instant::now();
    _ = service.get_at(ended + OLD - SECOND);
    assert_eq!(service.lookups(), 0, "it is young, and nobody doubts it");
    service.names.doubt(&service.name);
    _ = service.get_at(ended + PAUSE - SECOND);
    assert_eq!(service.lookups(), 0, "every 5 s at most");
    _ = service.get_at(ended + PAUSE);
    assert_eq!(service.lookups(), 1);
    service.answer(Ok(vec![ip("10.0.0.1")]));
    _ = service.get_at(Instant::now() + PAUSE);
    assert_eq!(service.lookups(), 0, "a lookup settles the doubt");
    _ = service.get_at(Instant::now() + OLD);
    assert_eq!(service.lookups(), 1, "it is old");
    service.answer(Ok(vec![ip("10.0.0.1")]));
}

#[test]
fn addresses_are_bounded_and_each_counts_once() {
    let service = Service::start();
    _ = service.get_at(Instant::now());
    let many = (0..100u8).flat_map(|n| [ip(&format!("10.0.0.{n}")), ip(&format!("10.0.0.{n}"))]);
    service.answer(Ok(many.collect()));
    let known = service.get_at(Instant::now()).unwrap();
    let expected: Vec<_> = (0..MOST).flat_map(|n| at(&format!("10.0.0.{n}"))).collect();
    assert_eq!(known, expected);
}

#[test]
fn whoever_waits_is_told_when_the_first_lookup_ends() {
    let service = Service::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let waited = tokio::time::timeout(SECOND / 10, service.names.wait(&service.name, 4200)).await;
        assert!(waited.is_err(), "{waited:?}");
        let (names, name) = (service.names.clone(), service.name.clone());
        let waiting = tokio::spawn(async move { names.wait(&name, 4200).await });
        tokio::task::yield_now().await;
        service.answer(Ok(vec![ip("10.0.0.1")]));
        assert_eq!(waiting.await.unwrap(), Ok(at("10.0.0.1")));
    });
}

#[test]
fn only_a_name_whose_addresses_are_all_loopback_is_one_that_peers_cannot_join() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let name: Host = "h1".parse().unwrap();
    let asked = |answer: fn() -> io::Result<Vec<SocketAddr>>| {
        let names = Names::looked_up_by(move |_| answer());
        runtime.block_on(names.is_loopback_only(&name, 20 * SECOND))
    };
    assert!(asked(|| Ok(vec![ip("127.0.1.1"), ip("::1")])));
    assert!(!asked(|| Ok(vec![ip("127.0.1.1"), ip("10.0.0.1")])));
    assert!(!asked(|| Ok(vec![])));
    assert!(!asked(|| Err(io::Error::other("no"))));
    let silent = Service::start();
    assert!(!runtime.block_on(silent.names.is_loopback_only(&name, SECOND / 10)));
}
