//! Tests which hosts stay, and for how long.

use proptest::prelude::*;

use super::*;

const HOLD: Duration = Duration::from_secs(60);
const OUTAGE: Option<Duration> = Some(Duration::from_secs(10));

fn node(name: &str) -> Node {
    let announcement = Announcement::from_json(br#"{"http":4200,"transport":4300}"#).unwrap();
    Node { host: name.parse().unwrap(), announcement }
}

fn nodes(names: &str) -> Vec<Node> {
    names.split_terminator(' ').map(node).collect()
}

fn names(roster: &Roster) -> String {
    let snapshot = roster.snapshot(1);
    snapshot.nodes().iter().map(|node| node.host.as_str()).collect::<Vec<_>>().join(" ")
}

fn delete(roster: &mut Roster, name: &str, now: Instant) -> bool {
    roster.delete(&name.parse().unwrap(), now)
}

/// A roster that has listed `names` at its start.
fn roster(names: &str, now: Instant) -> Roster {
    let mut roster = Roster::new(HOLD);
    // The length of the outage does not matter: no host was known before it.
    assert_eq!(roster.list(nodes(names), now, OUTAGE), 0);
    roster
}

#[test]
fn changes_seen_live_apply_at_once() {
    let now = Instant::now();
    let mut roster = roster("b a", now);
    assert_eq!(names(&roster), "a b");
    assert!(roster.put(node("c")));
    assert!(!roster.put(node("c")), "the same again is no change");
    assert!(delete(&mut roster, "a", now));
    assert!(!delete(&mut roster, "a", now));
    assert_eq!(names(&roster), "b c");
    assert_eq!(roster.release_at(), None);
}

#[test]
fn list_without_an_outage_is_believed() {
    let now = Instant::now();
    let mut roster = roster("a b", now);
    assert_eq!(roster.list(nodes("b c"), now, None), 0);
    assert_eq!(names(&roster), "b c");
}

/// Such a list may be read after a compaction, soon after the outage. The end of a key that the watch did not see is
/// treated like one that it saw.
#[test]
fn list_in_the_aftermath_of_an_outage_holds_who_was_not_put_since() {
    let now = Instant::now();
    let mut roster = roster("a b c", now);
    assert_eq!(roster.list(nodes("a b c"), now, OUTAGE), 0);
    roster.put(node("b"));
    assert_eq!(roster.list(nodes("b c"), now, None), 1);
    assert_eq!(names(&roster), "a b c");
    // A host that was put is known to be alive, even after that list.
    assert!(delete(&mut roster, "b", now));
    assert_eq!(roster.release(now + HOLD), 1);
    assert_eq!(names(&roster), "c");
}

#[test]
fn host_that_is_missing_after_an_outage_stays_for_the_hold() {
    let now = Instant::now();
    let mut roster = roster("a b", now);
    assert_eq!(roster.list(nodes("c"), now, OUTAGE), 2);
    assert_eq!(names(&roster), "a b c", "who is new is there at once");
    assert_eq!(roster.release_at(), Some(now + HOLD));
    assert!(roster.put(node("d")));
    assert!(!roster.put(node("b")), "it comes back as it was");
    assert_eq!(roster.release(now + HOLD - Duration::from_millis(1)), 0);
    assert_eq!(roster.release(now + HOLD), 1);
    assert_eq!(names(&roster), "b c d");
}

#[test]
fn host_that_came_back_and_then_leaves_goes_at_once() {
    let now = Instant::now();
    let mut roster = roster("a b", now);
    roster.list(nodes(""), now, OUTAGE);
    roster.put(node("a"));
    assert!(delete(&mut roster, "a", now));
    assert_eq!(names(&roster), "b");
}

/// An etcd that was frozen may treat every lease as expired.
#[test]
fn host_that_ends_in_the_aftermath_of_an_outage_stays_for_the_hold() {
    let now = Instant::now();
    let mut roster = roster("a b", now);
    assert_eq!(roster.list(nodes("a b"), now, OUTAGE), 0);
    let soon = now + Duration::from_secs(1);
    assert!(!delete(&mut roster, "a", soon));
    assert!(!delete(&mut roster, "b", soon));
    assert!(!roster.put(node("b")), "its announcer claims it again");
    assert_eq!(roster.release(now + HOLD), 1);
    assert_eq!(names(&roster), "b");
    assert!(delete(&mut roster, "b", now + HOLD));

    roster.list(nodes("c"), now + HOLD, None);
    assert!(delete(&mut roster, "c", now + HOLD), "the aftermath is over");
}

#[test]
fn hold_runs_only_while_etcd_can_be_read() {
    let now = Instant::now();
    let mut roster = roster("a", now);
    roster.list(nodes(""), now, OUTAGE);
    let (seen, outage) = (Duration::from_secs(40), Duration::from_secs(3600));
    let again = now + seen + outage;
    assert_eq!(roster.list(nodes(""), again, Some(outage)), 1);
    assert_eq!(roster.release_at(), Some(again + HOLD - seen), "it does not begin anew either");
}

#[test]
fn key_that_is_no_announcement_any_more_goes_at_once() {
    let now = Instant::now();
    let mut roster = roster("a", now);
    roster.list(nodes("a"), now, OUTAGE);
    assert!(roster.remove(&"a".parse().unwrap()));
    assert_eq!(names(&roster), "");
}

#[derive(Clone, Debug)]
enum Step {
    List(Vec<u8>, Option<u64>),
    Put(u8),
    Delete(u8),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (proptest::collection::vec(0u8..6, 0..6), proptest::option::of(0u64..200))
            .prop_map(|(hosts, outage)| Step::List(hosts, outage)),
        (0u8..6).prop_map(Step::Put),
        (0u8..6).prop_map(Step::Delete),
        (0u64..90).prop_map(Step::Wait),
    ]
}

proptest! {
    /// A host that is in etcd is shown. A host that is not in etcd is shown for no longer than the hold.
    #[test]
    fn nobody_is_missing_and_nobody_stays_longer_than_the_hold(steps in proptest::collection::vec(step(), 0..60)) {
        let name = |host: u8| format!("h{host}");
        let mut now = Instant::now();
        let mut roster = Roster::new(HOLD);
        roster.list(Vec::new(), now, None);
        // Which hosts are in etcd, and how long the others were missing while etcd could be read.
        let mut there = [false; 6];
        let mut away = [Duration::MAX; 6];
        for step in steps {
            match step {
                Step::List(hosts, outage) => {
                    let outage = outage.map(Duration::from_secs);
                    now += outage.unwrap_or_default();
                    let listed = (0..6).map(|host| hosts.contains(&host)).collect::<Vec<_>>();
                    let listing = (0..6).filter(|&host| listed[usize::from(host)]).map(|host| node(&name(host)));
                    roster.list(listing, now, outage);
                    for host in 0..6 {
                        if there[host] && !listed[host] {
                            away[host] = Duration::ZERO;
                        }
                        there[host] = listed[host];
                    }
                }
                Step::Put(host) => {
                    roster.put(node(&name(host)));
                    there[usize::from(host)] = true;
                }
                Step::Delete(host) => {
                    delete(&mut roster, &name(host), now);
                    if std::mem::take(&mut there[usize::from(host)]) {
                        away[usize::from(host)] = Duration::ZERO;
                    }
                }
                Step::Wait(seconds) => {
                    now += Duration::from_secs(seconds);
                    away.iter_mut().for_each(|away| *away = away.saturating_add(Duration::from_secs(seconds)));
                    roster.release(now);
                }
            }
            let shown = roster.snapshot(1);
            for host in 0..6u8 {
                let is_shown = shown.nodes().iter().any(|node| node.host.as_str() == name(host));
                if there[usize::from(host)] {
                    prop_assert!(is_shown, "h{host} is missing");
                } else if away[usize::from(host)] > HOLD {
                    prop_assert!(!is_shown, "h{host} has been away for {:?}", away[usize::from(host)]);
                }
            }
        }
    }
}

fn size(roster: &Roster) -> usize {
    roster.members.iter().map(|(host, member)| list::size(host, &member.announcement)).sum()
}

proptest! {
    /// The size is always that of the known hosts, and held hosts never make it too large.
    #[test]
    fn size_is_that_of_all_members(steps in proptest::collection::vec((0u8..5, 0u8..6), 0..60)) {
        let mut now = Instant::now();
        let mut roster = Roster::new(HOLD);
        for (step, who) in steps {
            let name = format!("h{who}");
            match step {
                0 => _ = roster.put(node(&name)),
                1 => _ = roster.delete(&name.parse().unwrap(), now),
                2 => _ = roster.list(nodes(&format!("{name} x")), now, OUTAGE),
                3 => _ = roster.list(nodes(&name), now, None),
                _ => {
                    now += HOLD / 2;
                    roster.release(now);
                }
            }
            prop_assert_eq!(roster.size(), size(&roster));
        }
    }
}

#[test]
fn what_is_held_is_bounded() {
    let mut now = Instant::now();
    let mut roster = Roster::new(HOLD);
    for list in 0..10 {
        let hosts = (0..10_000).map(|i| node(&format!("h{list}-{i}")));
        roster.list(hosts, now, OUTAGE);
        now += Duration::from_secs(1);
        assert!(roster.size() <= list::LARGEST, "{} after {list} lists", roster.size());
    }
    assert!(roster.size() > list::LARGEST / 2);
}
