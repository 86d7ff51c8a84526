//! Tree algebra: a forest of snapshots without cycles, and where NOW hangs in it.

use crate::id::SnapshotId;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Parents of all snapshots of one virtual machine, and the one NOW is a child of.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tree {
    /// Each snapshot and its parent (E3).
    pub parents: BTreeMap<SnapshotId, Option<SnapshotId>>,
    /// The snapshot that NOW is a child of (A12).
    pub current: Option<SnapshotId>,
}

/// Which snapshots a deletion is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// The one only; its children move up (E15, R8).
    One(SnapshotId),
    /// The one and all that descend from it (A13).
    Subtree(SnapshotId),
    /// All that descend from it, but not it.
    Children(SnapshotId),
    /// Every snapshot of the virtual machine (C36).
    All,
}

/// What a deletion does to the rest of the tree.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Removal {
    /// Survivors that get another parent.
    pub moved: BTreeMap<SnapshotId, Option<SnapshotId>>,
    /// Where NOW hangs afterwards (R6).
    pub current: Option<SnapshotId>,
}

impl Tree {
    /// The snapshots `scope` is about.
    pub fn select(&self, scope: Scope) -> BTreeSet<SnapshotId> {
        match scope {
            Scope::One(id) => BTreeSet::from([id]),
            Scope::Subtree(id) => {
                let mut selected = self.descendants(id);
                selected.insert(id);
                selected
            }
            Scope::Children(id) => self.descendants(id),
            Scope::All => self.parents.keys().copied().collect(),
        }
    }

    /// What deleting `gone` does to the others: children move up to the nearest survivor.
    pub fn without(&self, gone: &BTreeSet<SnapshotId>) -> Removal {
        let mut removal =
            Removal { current: self.survivor(self.current, gone), ..Removal::default() };
        for (&id, &parent) in &self.parents {
            if gone.contains(&id) {
                continue;
            }
            let survivor = self.survivor(parent, gone);
            if survivor != parent {
                removal.moved.insert(id, survivor);
            }
        }
        removal
    }

    /// Everything beneath `id`.
    pub fn descendants(&self, id: SnapshotId) -> BTreeSet<SnapshotId> {
        let mut found = BTreeSet::new();
        let mut open = vec![id];
        while let Some(parent) = open.pop() {
            for (&child, &its_parent) in &self.parents {
                if its_parent == Some(parent) && found.insert(child) {
                    open.push(child);
                }
            }
        }
        found
    }

    /// The nearest of `from` and its ancestors that is not in `gone`.
    fn survivor(
        &self,
        from: Option<SnapshotId>,
        gone: &BTreeSet<SnapshotId>,
    ) -> Option<SnapshotId> {
        let mut at = from;
        while let Some(id) = at.filter(|id| gone.contains(id)) {
            at = self.parents.get(&id).copied().flatten();
        }
        at
    }

    /// What makes this no forest, if anything: an unknown parent, a cycle, a current that is gone.
    pub fn flaw(&self) -> Option<String> {
        if let Some(current) = self.current
            && !self.parents.contains_key(&current)
        {
            return Some(format!("current {current} is not in the tree"));
        }
        for &start in self.parents.keys() {
            let mut steps = 0;
            let mut at = start;
            while let Some(&parent) = self.parents.get(&at) {
                let Some(parent) = parent else { break };
                if !self.parents.contains_key(&parent) {
                    return Some(format!("{at} has the unknown parent {parent}"));
                }
                steps += 1;
                if steps > self.parents.len() {
                    return Some(format!("{start} is its own ancestor"));
                }
                at = parent;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{Scope, Tree};
    use crate::id::SnapshotId;
    use std::collections::BTreeSet;
    use uuid::Uuid;

    fn id(n: u128) -> SnapshotId {
        SnapshotId(Uuid::from_u128(n))
    }

    /// Parents by number, 0 for a root; `current` likewise.
    fn tree(parents: &[(u128, u128)], current: u128) -> Tree {
        let some = |n: u128| (n != 0).then(|| id(n));
        let parents = parents.iter().map(|&(child, parent)| (id(child), some(parent))).collect();
        Tree { parents, current: some(current) }
    }

    fn check(before: &Tree, scope: Scope, after: &Tree) {
        let gone = before.select(scope);
        let removal = before.without(&gone);
        let mut result = before.clone();
        result.parents.retain(|id, _| !gone.contains(id));
        result.parents.extend(removal.moved);
        result.current = removal.current;
        assert_eq!(&result, after);
        assert_eq!(result.flaw(), None);
    }

    /// E15, R8.
    #[test]
    fn deleting_one_moves_its_children_up() {
        let before = tree(&[(1, 0), (2, 1), (3, 2), (4, 2)], 4);
        check(&before, Scope::One(id(2)), &tree(&[(1, 0), (3, 1), (4, 1)], 4));
    }

    /// R6, E4.
    #[test]
    fn deleting_the_current_makes_its_parent_current() {
        let before = tree(&[(1, 0), (2, 1)], 2);
        check(&before, Scope::One(id(2)), &tree(&[(1, 0)], 1));
        check(&tree(&[(1, 0)], 1), Scope::One(id(1)), &tree(&[], 0));
    }

    /// A13, A20.
    #[test]
    fn a_subtree_takes_children_and_grandchildren() {
        let before = tree(&[(1, 0), (2, 1), (3, 2), (4, 1)], 3);
        check(&before, Scope::Subtree(id(2)), &tree(&[(1, 0), (4, 1)], 1));
    }

    /// R8.
    #[test]
    fn children_only_keeps_the_parent() {
        let before = tree(&[(1, 0), (2, 1), (3, 2), (4, 0)], 4);
        check(&before, Scope::Children(id(1)), &tree(&[(1, 0), (4, 0)], 4));
    }

    /// C36.
    #[test]
    fn all_leaves_nothing() {
        check(&tree(&[(1, 0), (2, 1), (4, 0)], 2), Scope::All, &tree(&[], 0));
    }

    /// R6: a virtual machine may have several roots.
    #[test]
    fn deleting_a_root_makes_roots_of_its_children() {
        let before = tree(&[(1, 0), (2, 1), (3, 1)], 3);
        check(&before, Scope::One(id(1)), &tree(&[(2, 0), (3, 0)], 3));
    }

    #[test]
    fn a_cycle_is_a_flaw() {
        assert!(tree(&[(1, 2), (2, 1)], 0).flaw().is_some());
        assert!(tree(&[(1, 3)], 0).flaw().is_some());
        assert!(tree(&[(1, 0)], 2).flaw().is_some());
        assert_eq!(tree(&[], 0).select(Scope::All), BTreeSet::new());
    }
}
