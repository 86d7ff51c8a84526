//! Draws a snapshot tree with NOW in it (C33, C34).

use crate::size;
use tintype_wire::rest::{Node, Tree};
use uuid::Uuid;

/// A branch of the drawing: a line of text and what hangs under it.
struct Branch {
    text: String,
    under: Vec<Branch>,
}

pub(crate) fn draw(tree: &Tree) -> String {
    let mut roots: Vec<Branch> = tree.roots.iter().map(|node| branch(node, tree)).collect();
    if tree.now.parent.is_none() {
        roots.push(now(tree));
    }
    let mut text = format!("{}\n", tree.name);
    draw_all(&roots, "", &mut text);
    text
}

fn branch(node: &Node, tree: &Tree) -> Branch {
    let snapshot = &node.snapshot;
    let mut under: Vec<Branch> = node.children.iter().map(|child| branch(child, tree)).collect();
    if is_parent_of_now(snapshot.id, tree) {
        under.push(now(tree));
    }
    let mut facts = vec![snapshot.kind.clone()];
    if snapshot.state != "ready" {
        facts.push(snapshot.state.clone());
    }
    if let Some(pause_ms) = snapshot.pause_ms {
        facts.push(format!("paused {pause_ms} ms"));
    }
    facts.push(size::show(snapshot.size_bytes));
    Branch { text: format!("{}  ({})", snapshot.name, facts.join(", ")), under }
}

fn is_parent_of_now(id: Uuid, tree: &Tree) -> bool {
    tree.now.parent == Some(id)
}

fn now(tree: &Tree) -> Branch {
    Branch { text: format!("NOW  ({})", tree.now.state), under: Vec::new() }
}

fn draw_all(branches: &[Branch], margin: &str, text: &mut String) {
    for (n, branch) in branches.iter().enumerate() {
        let last = n + 1 == branches.len();
        let (corner, rail) = if last { ("└── ", "    ") } else { ("├── ", "│   ") };
        text.push_str(&format!("{margin}{corner}{}\n", branch.text));
        draw_all(&branch.under, &format!("{margin}{rail}"), text);
    }
}

#[cfg(test)]
mod tests {
    use super::{Branch, draw_all};

    fn branch(text: &str, under: Vec<Branch>) -> Branch {
        Branch { text: text.to_owned(), under }
    }

    /// C33, C34.
    #[test]
    fn the_tree_shows_parents_children_and_now() {
        let tree = [
            branch(
                "one",
                vec![branch("two", vec![branch("NOW", vec![])]), branch("three", vec![])],
            ),
            branch("root", vec![]),
        ];
        let mut text = String::new();
        draw_all(&tree, "", &mut text);
        insta::assert_snapshot!(text, @r"
        ├── one
        │   ├── two
        │   │   └── NOW
        │   └── three
        └── root
        ");
    }
}
