//! Meets every world of a model, breadth first, then follows each to where it settles.

use std::{collections::HashSet, fmt::Write as _, hash::Hash};

use super::quick::QuickMap;

/// What happens, the world after it, and the rule that it breaks.
pub struct Change<W> {
    pub what: &'static str,
    pub after: W,
    pub broken: Option<&'static str>,
}

/// What can be searched.
pub trait Model {
    type World: Copy + Eq + Hash;

    fn beginnings(&self) -> Vec<Self::World>;
    /// What may happen although nothing goes wrong.
    fn steps(&self, world: &Self::World) -> Vec<Change<Self::World>>;
    /// What may go wrong, or be done from outside.
    fn faults(&self, world: &Self::World) -> Vec<Change<Self::World>>;
    /// What no world may be like in which nothing happens any more.
    fn settled_badly(&self, world: &Self::World) -> Option<&'static str>;
    fn describe(&self, world: &Self::World) -> String;
}

/// All worlds that were met, in that order.
pub struct Explored<M: Model> {
    pub model: M,
    /// The one rule that is looked at, or all of them.
    rule: Option<&'static str>,
    pub worlds: Vec<M::World>,
    numbers: QuickMap<M::World, u32>,
    /// The world that each was met from, and what happened; itself for the first ones.
    from: Vec<(u32, &'static str)>,
    /// What follows by itself.
    next: Vec<Box<[u32]>>,
}

impl<M: Model> Explored<M> {
    /// Everything that can be reached with so many faults.
    ///
    /// # Errors
    /// The rule that is broken, with the shortest story that leads there.
    pub fn explore(faults: usize, model: M, rule: Option<&'static str>) -> Result<Self, String> {
        let (worlds, numbers, from, next) = (Vec::new(), QuickMap::default(), Vec::new(), Vec::new());
        let mut explored = Self { model, rule, worlds, numbers, from, next };
        for world in explored.model.beginnings() {
            explored.meet(world, None);
        }
        let mut first = 0;
        for behind in 0..=faults {
            let mut number = first;
            while number < explored.worlds.len() {
                let steps = explored.model.steps(&explored.worlds[number]);
                let next = explored.take(number, steps)?;
                explored.next.push(next.into());
                number += 1;
            }
            println!("{behind} faults: {number} worlds");
            let with_more = if behind < faults { first..number } else { 0..0 };
            for from in with_more {
                let faults = explored.model.faults(&explored.worlds[from]);
                explored.take(from, faults)?;
            }
            first = number;
        }
        Ok(explored)
    }

    fn is_broken(&self, rule: &'static str) -> bool {
        self.rule.is_none_or(|looked_at| looked_at == rule)
    }

    fn take(&mut self, from: usize, changes: Vec<Change<M::World>>) -> Result<Vec<u32>, String> {
        let mut met = Vec::new();
        for Change { what, after, broken } in changes {
            if let Some(broken) = broken.filter(|broken| self.is_broken(broken)) {
                let after = self.model.describe(&after);
                return Err(format!("{broken}\n{}!! {what}\n   {after}", self.story(from)));
            }
            met.push(self.meet(after, Some((from, what))));
        }
        Ok(met)
    }

    fn meet(&mut self, world: M::World, from: Option<(usize, &'static str)>) -> u32 {
        let index = |number| u32::try_from(number).expect("not that many");
        if let Some(number) = self.numbers.get(&world) {
            return *number;
        }
        let number = index(self.worlds.len());
        self.worlds.push(world);
        self.numbers.insert(world, number);
        self.from.push(from.map_or((number, "it begins"), |(from, what)| (index(from), what)));
        number
    }

    /// Follows every path without faults to its end; gives the most steps that any takes.
    ///
    /// # Errors
    /// A path that has no end, or one that is not as it should be.
    pub fn settle(&self) -> Result<u32, String> {
        let mut longest: Vec<Option<u32>> = vec![None; self.worlds.len()];
        for start in 0..self.worlds.len() {
            let (mut path, mut on_path) = (vec![start], HashSet::from([start]));
            while let Some(&here) = path.last() {
                if let Some(open) = self.next[here].iter().find(|next| longest[**next as usize].is_none()) {
                    let open = *open as usize;
                    if !on_path.insert(open) {
                        return Err(format!("for ever\n{}", self.story(here)));
                    }
                    path.push(open);
                    continue;
                }
                let world = &self.worlds[here];
                if self.next[here].is_empty()
                    && let Some(badly) = self.model.settled_badly(world).filter(|badly| self.is_broken(badly))
                {
                    return Err(format!("{badly}\n{}", self.story(here)));
                }
                let further = self.next[here].iter().filter_map(|next| longest[*next as usize]);
                longest[here] = Some(further.map(|steps| steps + 1).max().unwrap_or(0));
                on_path.remove(&here);
                path.pop();
            }
        }
        Ok(longest.into_iter().flatten().max().unwrap_or(0))
    }

    /// The worlds in which nothing happens any more.
    pub fn ends(&self) -> impl Iterator<Item = &M::World> {
        self.worlds.iter().zip(&self.next).filter(|(_, next)| next.is_empty()).map(|(world, _)| world)
    }

    /// How a world came about.
    fn story(&self, number: usize) -> String {
        let mut path = vec![number];
        while let Some(&here) = path.last()
            && self.from[here].0 as usize != here
        {
            path.push(self.from[here].0 as usize);
        }
        path.iter().rev().fold(String::new(), |mut story, here| {
            writeln!(story, "-- {}\n   {}", self.from[*here].1, self.model.describe(&self.worlds[*here]))
                .expect("a string");
            story
        })
    }
}
