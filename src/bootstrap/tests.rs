use super::*;
use crate::lease::LeaseId;

pub(super) fn machine(number: u32) -> MachineId {
    MachineId::derive(&format!("{number:032}")).unwrap()
}

fn candidate(name: &str, on: u32, expect: u32) -> Candidate {
    let boot = BootId::derive(&format!("{on:032}"));
    let said = Said { expect, machine: machine(on), boot, saw_etcd_fail: false };
    Candidate { name: name.parse().unwrap(), said }
}

/// The next step of a candidate without a note, once all candidates have settled.
fn decide(view: &View, me: &Candidate, session: Option<LeaseId>) -> Step {
    super::decide(view, Asker { me, session, note: None, settled: true, fresh: FRESH.parse().unwrap() })
}

/// The epoch that begins if none is stored.
const FRESH: &str = "1764127317000";

fn epoch(number: u64) -> Epoch {
    number.try_into().unwrap()
}

fn formed(by: &str) -> Formed {
    Formed { by: by.to_owned(), epoch: None }
}

fn session(number: i64) -> Option<LeaseId> {
    LeaseId::from_etcd(number)
}

/// A candidate whose lease has the same number as its create revision.
pub(super) fn registered(name: &str, on: u32, expect: u32, create_revision: i64) -> Registered {
    Registered {
        candidate: candidate(name, on, expect),
        create_revision,
        mod_revision: create_revision + 100,
        lease: session(create_revision),
    }
}

fn list(nodes: &[(&str, u32)]) -> List {
    let listed = |(name, on): &(&str, u32)| Listed { name: name.parse().unwrap(), machine: machine(*on) };
    List { epoch: None, nodes: nodes.iter().map(listed).collect() }
}

pub(super) fn view(candidates: &[Registered]) -> View {
    View { candidates: candidates.to_vec(), ..View::default() }
}

#[test]
fn whoever_is_not_registered_registers_and_nothing_else() {
    let me = candidate("a", 1, 2);
    let others = view(&[registered("b", 2, 2, 5), registered("c", 3, 2, 6)]);
    let register = |revision, lease| {
        Step::Change(Change::Register, vec![Condition::Candidate(me.name.clone(), revision, lease)])
    };
    assert_eq!(decide(&others, &me, None), register(0, None));
    // The candidate was started again while its old lease still exists. Its key is replaced.
    let mut with_ours = others;
    with_ours.candidates.push(registered("a", 1, 2, 7));
    assert_eq!(decide(&with_ours, &me, session(99)), register(107, session(7)));
    // The same candidate now wants another number of names.
    with_ours.candidates[2].candidate.said.expect = 3;
    assert_eq!(decide(&with_ours, &me, session(7)), register(107, session(7)));
}

#[test]
fn first_candidates_are_frozen_if_they_still_are_as_seen() {
    let me = candidate("c", 3, 2);
    let three = view(&[registered("b", 2, 2, 5), registered("a", 1, 2, 6), registered("c", 3, 2, 7)]);
    let frozen = List { epoch: Some(FRESH.parse().unwrap()), ..list(&[("b", 2), ("a", 1)]) };
    assert_eq!(
        decide(&three, &me, session(7)),
        Step::Change(
            Change::Freeze { list: frozen.clone(), begins_epoch: true },
            vec![
                Condition::Candidate("b".parse().unwrap(), 105, session(5)),
                Condition::Candidate("a".parse().unwrap(), 106, session(6)),
                Condition::Epoch(0, None),
                Condition::List(0),
                Condition::Formed(0),
                Condition::NobodyAnnounced,
            ]
        )
    );
    // After a reset there is an epoch.
    let mut reset = three.clone();
    reset.epoch = Some((90, Ok(epoch(5))));
    let Step::Change(Change::Freeze { list, begins_epoch }, conditions) = decide(&reset, &me, session(7))
    else {
        panic!("it freezes")
    };
    assert_eq!((list.epoch, begins_epoch), (Some(epoch(5)), false));
    assert!(conditions.contains(&Condition::Epoch(90, Some(epoch(5)))), "{conditions:?}");
    // Nothing is frozen before the candidates have settled.
    let early = Asker { me: &me, session: session(7), note: None, settled: false, fresh: epoch(1) };
    let there = vec!["b".parse().unwrap(), "a".parse().unwrap()];
    assert_eq!(super::decide(&three, early), Step::Wait(Obstacle::Settling { expect: 2, there }));
    let one = view(&[registered("c", 3, 2, 7)]);
    let expected = Obstacle::TooFew { expect: 2, there: vec![me.name.clone()] };
    assert_eq!(decide(&one, &me, session(7)), Step::Wait(expected));
}

#[test]
fn other_numbers_and_another_machines_name_block_with_a_sentence() {
    let me = candidate("a", 1, 2);
    let differing = view(&[registered("a", 1, 2, 5), registered("b", 2, 3, 6), registered("c", 3, 2, 7)]);
    let Step::Wait(obstacle) = decide(&differing, &me, session(5)) else { panic!("it blocks") };
    assert_eq!(
        obstacle.to_string(),
        "a expects 2 candidates and b expects 3: set the same \"--expect\" on every node"
    );
    let taken = view(&[registered("a", 9, 2, 5), registered("b", 2, 2, 6)]);
    let Step::Wait(obstacle) = decide(&taken, &me, None) else { panic!("it blocks") };
    assert!(obstacle.to_string().starts_with("another machine ("), "{obstacle}");
}

#[test]
fn same_name_from_another_boot_of_the_machine_waits_and_from_the_same_boot_is_replaced() {
    let me = candidate("a", 1, 2);
    let mut before = view(&[registered("a", 1, 2, 5)]);
    assert!(matches!(decide(&before, &me, None), Step::Change(Change::Register, _)));
    before.candidates[0].candidate.said.boot = BootId::derive(&"9".repeat(32));
    let Step::Wait(obstacle) = decide(&before, &me, None) else { panic!("it blocks") };
    assert_eq!(obstacle, Obstacle::TakenByAnotherBoot { name: me.name.clone() });
    // An older program does not store its boot.
    before.candidates[0].candidate.said.boot = None;
    assert!(matches!(decide(&before, &me, None), Step::Change(Change::Register, _)));
}

#[test]
fn note_that_holds_means_join_whatever_is_stored() {
    let me = candidate("a", 1, 2);
    let note = |number| Note {
        prefix: "/services/crate".to_owned(),
        machine: machine(1),
        node: None,
        cluster: None,
        epoch: epoch(number),
        evidence: Evidence::HasMaster,
    };
    let with = |view: &View, note: &Note| {
        super::decide(
            view,
            Asker { me: &me, session: None, note: Some(note), settled: true, fresh: epoch(9) },
        )
    };
    let noted = |is_seen| Step::Done(Answer::Join(Cluster::Noted { is_seen }));
    // Etcd was wiped, or restored from an old backup with a list.
    let mut stored = view(&[]);
    assert_eq!(with(&stored, &note(5)), noted(false));
    stored.epoch = Some((7, Ok(epoch(4))));
    stored.list = Some((9, Ok(list(&[("a", 1)]))));
    assert_eq!(with(&stored, &note(5)), noted(false));
    stored.announced = Some("/services/crate/x".to_owned());
    assert_eq!(with(&stored, &note(5)), noted(true));
    stored.epoch = Some((7, Err(InvalidEpoch)));
    assert_eq!(with(&stored, &note(5)), noted(true));
    // After a reset, the old note does not count.
    stored.epoch = Some((7, Ok(epoch(6))));
    assert_eq!(with(&stored, &note(5)), Step::Done(Answer::Elect(list(&[("a", 1)]))));
}

#[test]
fn node_is_started_in_the_notes_epoch_or_in_the_stored_one_and_else_in_none_that_is_known() {
    let note = |number| Note {
        prefix: "/services/crate".to_owned(),
        machine: machine(1),
        node: None,
        cluster: None,
        epoch: epoch(number),
        evidence: Evidence::HasMaster,
    };
    let join = Answer::Join(Cluster::Announced("/services/crate/x".to_owned()));
    assert_eq!(started_in(&join, Some(&note(5)), Some(epoch(4))), Some(epoch(5)));
    assert_eq!(started_in(&join, None, Some(epoch(4))), Some(epoch(4)));
    // Etcd lost its data, and no announced host has stored the mark again.
    assert_eq!(started_in(&join, None, None), None);
    assert_eq!(started_in(&join, Some(&note(0)), None), None);
    assert_eq!(started_in(&Answer::Elect(list(&[("a", 1)])), None, None), Some(epoch(0)), "an old list");
}

#[test]
fn list_of_another_epoch_and_an_epoch_that_is_none_are_refused() {
    let me = candidate("a", 1, 1);
    let mut stored = view(&[]);
    stored.epoch = Some((7, Ok(epoch(6))));
    stored.list = Some((9, Ok(List { epoch: Some(epoch(5)), ..list(&[("a", 1)]) })));
    let Step::Refuse(Obstacle::InvalidList(reason)) = decide(&stored, &me, None) else { panic!("refused") };
    assert_eq!(reason, "it is of epoch 5, and not of 6");
    stored.list = Some((9, Ok(List { epoch: Some(epoch(6)), ..list(&[("a", 1)]) })));
    assert!(matches!(decide(&stored, &me, None), Step::Done(Answer::Elect(_))));
    stored.epoch = Some((7, Err(InvalidEpoch)));
    assert_eq!(decide(&stored, &me, None), Step::Refuse(Obstacle::InvalidEpoch(InvalidEpoch)));
}

#[test]
fn list_is_for_everybody_until_the_cluster_has_formed() {
    let mut frozen = view(&[registered("a", 1, 2, 5)]);
    frozen.list = Some((9, Ok(list(&[("b", 2), ("a", 1)]))));
    let elect = Step::Done(Answer::Elect(list(&[("b", 2), ("a", 1)])));
    for me in [candidate("a", 1, 2), candidate("late", 4, 2), candidate("b", 2, 5)] {
        assert_eq!(decide(&frozen, &me, None), elect);
    }
    // The nodes of the list are announced before they have elected a master.
    frozen.announced = Some("/services/crate/a".to_owned());
    assert_eq!(decide(&frozen, &candidate("late", 4, 2), None), elect);
    // Two nodes of one name could elect two masters.
    let Step::Refuse(obstacle) = decide(&frozen, &candidate("a", 9, 2), None) else { panic!("refused") };
    assert!(
        obstacle.to_string().starts_with("a is in the list as a node of another machine ("),
        "{obstacle}"
    );

    frozen.formed = Some((10, formed("a")));
    let join = Step::Done(Answer::Join(Cluster::Formed("a".to_owned())));
    assert_eq!(decide(&frozen, &candidate("a", 1, 2), None), join);
    assert_eq!(decide(&frozen, &candidate("a", 9, 2), None), join);
}

#[test]
fn announced_cluster_without_a_list_is_joined() {
    let mut announced = view(&[registered("a", 1, 2, 5), registered("b", 2, 2, 6)]);
    announced.announced = Some("/services/crate/x".to_owned());
    let join = Step::Done(Answer::Join(Cluster::Announced("/services/crate/x".to_owned())));
    assert_eq!(decide(&announced, &candidate("a", 1, 2), session(5)), join);
}

#[test]
fn list_that_cannot_be_read_is_no_missing_list() {
    let mut broken = view(&[registered("a", 1, 1, 5)]);
    broken.list = Some((9, Err("expected value".to_owned())));
    let step = decide(&broken, &candidate("a", 1, 1), session(5));
    assert_eq!(step, Step::Refuse(Obstacle::InvalidList("expected value".to_owned())));
}

#[test]
fn values_are_what_older_and_newer_programs_read() {
    let said = candidate("a", 1, 3).said;
    let boot = said.boot.clone().map(|boot| serde_json::to_string(&boot).unwrap()).unwrap();
    let json = format!(r#"{{"expect":3,"machine":"{}","boot":{boot}}}"#, machine(1));
    assert_eq!(serde_json::to_string(&said).unwrap(), json);
    let old = format!(r#"{{"expect":3,"machine":"{}"}}"#, machine(1));
    assert_eq!(serde_json::from_str::<Said>(&old).unwrap(), Said { boot: None, ..said });
    let json = format!(r#"{{"epoch":7,"nodes":[{{"name":"a","machine":"{}"}}]}}"#, machine(1));
    let newer = List { epoch: Some(epoch(7)), ..list(&[("a", 1)]) };
    assert_eq!(serde_json::to_string(&newer).unwrap(), json);
    let old = format!(r#"{{"nodes":[{{"name":"a","machine":"{}"}}]}}"#, machine(1));
    assert_eq!(serde_json::from_str::<List>(&old).unwrap(), list(&[("a", 1)]));
    assert!(serde_json::from_str::<Listed>(r#"{"name":"a,b","machine":""}"#).is_err());
    assert_eq!(Formed::read(b"h1"), formed("h1"));
    let newer = Formed { by: "h1".to_owned(), epoch: Some(epoch(7)) };
    assert_eq!(serde_json::to_string(&newer).unwrap(), r#"{"by":"h1","epoch":7}"#);
    assert_eq!(Formed::read(br#"{"by":"h1","epoch":7}"#), newer);
    assert_eq!(Formed::read(b"{\"by\":\"h\\u001b1\"}").by, "h\\u{1b}1");
}

#[test]
fn list_of_more_names_than_anybody_may_expect_is_no_list() {
    let named = |count: usize| {
        let node = |number| format!(r#"{{"name":"n{number}","machine":"{}"}}"#, machine(1));
        let nodes: Vec<String> = (0..count).map(node).collect();
        serde_json::from_str::<List>(&format!(r#"{{"nodes":[{}]}}"#, nodes.join(",")))
    };
    assert!(named(MOST_LISTED).is_ok());
    for (count, why) in [(0, "it names nobody"), (600, "it names 600 nodes, and at most 50 are allowed")] {
        let error = named(count).unwrap_err().to_string();
        assert!(error.starts_with(why), "{error}");
    }
}

#[test]
fn reset_is_done_when_its_epoch_is_there_whatever_came_after() {
    let at = |number: u64| View { epoch: Some((5, Ok(epoch(number)))), ..View::default() };
    assert!(!is_reset(epoch(7), &View::default()));
    assert!(!is_reset(epoch(7), &at(6)));
    assert!(is_reset(epoch(7), &at(7)));
    assert!(is_reset(epoch(7), &at(8)), "somebody else reset it later");
    assert!(!is_reset(epoch(7), &View { epoch: Some((5, Err(InvalidEpoch))), ..View::default() }));

    let mut seen = at(6);
    seen.formed = Some((9, formed("a")));
    let conditions = vec![
        Condition::Epoch(5, Some(epoch(6))),
        Condition::List(0),
        Condition::Formed(9),
        Condition::NobodyAnnounced,
    ];
    assert_eq!(reset(&seen, epoch(7)), (Change::Reset(epoch(7)), conditions));
}
