//! Meets every world, then follows each to where it settles.

use std::fmt::Write;

use super::{
    announcer::Announcer,
    changes::{Change, Model, NAMES},
    etcd::{World, lease_id, members},
    quick::QuickMap,
};

/// All worlds that were met, in that order.
#[derive(Default)]
pub struct Explored {
    pub model: Model,
    pub worlds: Vec<World>,
    numbers: QuickMap<World, u32>,
    /// The world that each was met from; itself for the first ones.
    from: Vec<u32>,
    /// What follows by itself: for world n, `next[first_next[n]..first_next[n + 1]]`.
    next: Vec<u32>,
    first_next: Vec<usize>,
}

impl Explored {
    /// Everything that can be reached with so many faults, and by itself from there.
    ///
    /// # Panics
    /// When a rule is broken, with the shortest story that leads there.
    pub fn explore(&mut self, faults: usize) {
        for gates in [[true, true], [true, false], [false, false]] {
            let announcers = gates.map(|open| Some(self.model.know(Announcer::new(open))));
            self.meet(World { announcers, ..World::default() }, None);
        }
        let mut first = 0;
        for behind in 0..=faults {
            let mut number = first;
            while number < self.worlds.len() {
                let steps = self.model.steps(&self.worlds[number].clone());
                self.first_next.push(self.next.len());
                for step in &self.take(number, &steps) {
                    self.next.push(*step);
                }
                number += 1;
            }
            println!("{behind} faults: {number} worlds");
            let with_more = if behind < faults { first..number } else { 0..0 };
            for from in with_more {
                let faults = self.model.faults(&self.worlds[from].clone());
                self.take(from, &faults);
            }
            first = number;
        }
        self.first_next.push(self.next.len());
    }

    fn take(&mut self, from: usize, changes: &[Change]) -> Vec<u32> {
        if let Some(broken) = self.model.broken {
            let mut story = self.story_of(from);
            for Change { who, what, .. } in changes {
                writeln!(story, "?? {who} {what}").unwrap();
            }
            panic!("{broken}, by one of the last\n{story}");
        }
        changes.iter().map(|change| self.meet(change.after, Some(from))).collect()
    }

    fn meet(&mut self, world: World, from: Option<usize>) -> u32 {
        if let Some(number) = self.numbers.get(&world) {
            return *number;
        }
        let number = index(self.worlds.len());
        self.worlds.push(world);
        self.numbers.insert(world, number);
        self.from.push(from.map_or(number, index));
        if let Some(broken) = self.model.broken_in(&world) {
            panic!("{broken}\n{}", self.story_of(number as usize));
        }
        number
    }

    /// Follows every path without faults to its end. Gives the most steps, and the most changes of
    /// the holder, that any takes.
    ///
    /// # Panics
    /// When a path has no end, which would be a fight for ever, or one that is not as it should be.
    pub fn settle(&self) -> (u32, u32) {
        let mut longest: Vec<Option<(u32, u32)>> = vec![None; self.worlds.len()];
        let mut on_path = vec![false; self.worlds.len()];
        for start in 0..self.worlds.len() {
            let mut path = vec![start];
            while let Some(&here) = path.last() {
                let next = &self.next[self.first_next[here]..self.first_next[here + 1]];
                on_path[here] = true;
                if let Some(open) = next.iter().find(|next| longest[**next as usize].is_none()) {
                    let open = *open as usize;
                    if on_path[open] {
                        path.push(open);
                        let turn = path.iter().position(|world| *world == open).unwrap_or(0);
                        panic!(
                            "for ever\n{}-- and so on:\n{}",
                            self.story_of(open),
                            self.story(&path[turn..])
                        );
                    }
                    path.push(open);
                    continue;
                }
                let world = &self.worlds[here];
                if next.is_empty()
                    && let Some(badly) = self.model.settled_badly(world)
                {
                    panic!("{badly}\n{}", self.story_of(here));
                }
                longest[here] = Some(next.iter().fold((0, 0), |(steps, holders), next| {
                    let (further_steps, further_holders) = longest[*next as usize].unwrap_or_default();
                    let holder = self.worlds[*next as usize].key.lease;
                    let changed = u32::from(holder != 0 && holder != world.key.lease);
                    (steps.max(further_steps + 1), holders.max(further_holders + changed))
                }));
                on_path[here] = false;
                path.pop();
            }
        }
        longest.into_iter().flatten().fold((0, 0), |most, one| (most.0.max(one.0), most.1.max(one.1)))
    }

    /// How a world came about.
    fn story_of(&self, number: usize) -> String {
        let mut path = vec![number];
        while let Some(&here) = path.last()
            && self.from[here] as usize != here
        {
            path.push(self.from[here] as usize);
        }
        path.reverse();
        format!("   {}\n{}", self.describe(&self.worlds[path[0]]), self.story(&path))
    }

    fn story(&self, path: &[usize]) -> String {
        // Making changes takes a model to note things in. This one has the same numbers.
        let mut model = Model::default();
        for known in &self.model.known {
            model.know(known.announcer.clone());
        }
        let mut story = String::new();
        for pair in path.windows(2) {
            let (before, after) = (&self.worlds[pair[0]], &self.worlds[pair[1]]);
            let (mut changes, faults) = (model.steps(before), model.faults(before));
            changes.extend(faults);
            let Change { who, what, .. } =
                changes.into_iter().find(|change| change.after == *after).expect("it was met from there");
            writeln!(story, "-- {who} {what}\n   {}", self.describe(after)).unwrap();
        }
        story
    }

    fn describe(&self, world: &World) -> String {
        let mut text = String::new();
        for (who, name) in NAMES.into_iter().enumerate() {
            match self.model.process(world, who) {
                Some(known) => write!(text, "{name} {:?}; ", known.announcer.machine.state()).unwrap(),
                None => write!(text, "{name} ended; ").unwrap(),
            }
        }
        let living: Vec<_> = members(world.living).filter_map(lease_id).collect();
        let late: Vec<_> = world.late.into_iter().flatten().collect();
        write!(text, "key {:?}; living {living:?}; late {late:?}", world.key.sight()).unwrap();
        text
    }
}

fn index(number: usize) -> u32 {
    u32::try_from(number).expect("not that many")
}
