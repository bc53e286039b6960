use super::*;

fn machine(number: u32) -> MachineId {
    MachineId::derive(&format!("{number:032}")).unwrap()
}

fn candidate(name: &str, on: u32, expect: u32) -> Candidate {
    Candidate { name: name.parse().unwrap(), said: Said { expect, machine: machine(on) } }
}

fn session(number: i64) -> Option<LeaseId> {
    LeaseId::from_etcd(number)
}

/// Each under a lease of its create revision's number.
fn registered(name: &str, on: u32, expect: u32, create_revision: i64) -> Registered {
    Registered {
        candidate: candidate(name, on, expect),
        create_revision,
        mod_revision: create_revision + 100,
        lease: session(create_revision),
    }
}

fn list(nodes: &[(&str, u32)]) -> List {
    let listed = |(name, on): &(&str, u32)| Listed { name: name.parse().unwrap(), machine: machine(*on) };
    List { nodes: nodes.iter().map(listed).collect() }
}

fn view(candidates: &[Registered]) -> View {
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
    // Started again, with the lease of its former life still there: replaced.
    let mut with_ours = others;
    with_ours.candidates.push(registered("a", 1, 2, 7));
    assert_eq!(decide(&with_ours, &me, session(99)), register(107, session(7)));
    // The same, with another number in mind.
    with_ours.candidates[2].candidate.said.expect = 3;
    assert_eq!(decide(&with_ours, &me, session(7)), register(107, session(7)));
}

#[test]
fn first_candidates_are_frozen_if_they_still_are_as_seen() {
    let me = candidate("c", 3, 2);
    let three = view(&[registered("b", 2, 2, 5), registered("a", 1, 2, 6), registered("c", 3, 2, 7)]);
    assert_eq!(
        decide(&three, &me, session(7)),
        Step::Change(
            Change::Freeze(list(&[("b", 2), ("a", 1)])),
            vec![
                Condition::Candidate("b".parse().unwrap(), 105, session(5)),
                Condition::Candidate("a".parse().unwrap(), 106, session(6)),
                Condition::List(0),
                Condition::Formed(0),
                Condition::NobodyAnnounced,
            ]
        )
    );
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
fn list_is_for_everybody_until_the_cluster_has_formed() {
    let mut frozen = view(&[registered("a", 1, 2, 5)]);
    frozen.list = Some((9, Ok(list(&[("b", 2), ("a", 1)]))));
    let elect = Step::Done(Answer::Elect(list(&[("b", 2), ("a", 1)])));
    for me in [candidate("a", 1, 2), candidate("late", 4, 2), candidate("b", 2, 5)] {
        assert_eq!(decide(&frozen, &me, None), elect);
    }
    // Its nodes are announced before they have elected anybody.
    frozen.announced = Some("/services/crate/a".to_owned());
    assert_eq!(decide(&frozen, &candidate("late", 4, 2), None), elect);
    // Two nodes of one name could elect two masters.
    let Step::Refuse(obstacle) = decide(&frozen, &candidate("a", 9, 2), None) else { panic!("refused") };
    assert!(
        obstacle.to_string().starts_with("a is in the list as a node of another machine ("),
        "{obstacle}"
    );

    frozen.formed = Some((10, "a".to_owned()));
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
fn values_are_as_the_readme_shows_them() {
    let said = Said { expect: 3, machine: machine(1) };
    let json = format!(r#"{{"expect":3,"machine":"{}"}}"#, machine(1));
    assert_eq!(serde_json::to_string(&said).unwrap(), json);
    let json = format!(r#"{{"nodes":[{{"name":"a","machine":"{}"}}]}}"#, machine(1));
    assert_eq!(serde_json::to_string(&list(&[("a", 1)])).unwrap(), json);
    assert!(serde_json::from_str::<Listed>(r#"{"name":"a,b","machine":""}"#).is_err());
}

#[test]
fn reset_is_done_when_what_was_seen_is_gone_whatever_came_after() {
    let at = |list_at: i64, formed_at: i64| View {
        list: (list_at != 0).then(|| (list_at, Ok(list(&[("a", 1)])))),
        formed: (formed_at != 0).then(|| (formed_at, "a".to_owned())),
        ..View::default()
    };
    assert!(!is_reset(&at(5, 6), &at(5, 6)));
    assert!(!is_reset(&at(5, 0), &at(5, 7)));
    assert!(is_reset(&at(5, 6), &at(0, 0)));
    assert!(is_reset(&at(5, 6), &at(8, 0)));
}
