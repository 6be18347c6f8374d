//! Changing a text by splices, so that the rest keeps its bytes.

use super::node::Node;
use super::scan::Kind;
use super::write::write_string;

/// Field paths as a tree: paths that share their first members share a branch.
#[derive(Debug)]
pub(crate) struct PathTree<L> {
    children: Vec<(String, PathNode<L>)>,
}

#[derive(Debug)]
enum PathNode<L> {
    Leaf(L),
    Branch(PathTree<L>),
}

/// Why a path does not fit in a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathConflict {
    /// The same path is there already.
    Same,
    /// The path is inside another one, or holds another one.
    Inside,
}

impl<L> PathTree<L> {
    pub(crate) fn new() -> Self {
        Self { children: Vec::new() }
    }

    /// Adds a path; the order of first members is kept.
    pub(crate) fn insert(&mut self, members: &[String], leaf: L) -> Result<(), PathConflict> {
        let Some((first, rest)) = members.split_first() else { return Err(PathConflict::Same) };
        let found = self.children.iter().position(|(name, _)| name == first);
        match (found, rest.is_empty()) {
            (None, true) => self.children.push((first.clone(), PathNode::Leaf(leaf))),
            (None, false) => {
                let mut branch = PathTree::new();
                branch.insert(rest, leaf)?;
                self.children.push((first.clone(), PathNode::Branch(branch)));
            }
            (Some(at), last) => match (&mut self.children[at].1, last) {
                (PathNode::Leaf(_), true) => return Err(PathConflict::Same),
                (PathNode::Branch(branch), false) => return branch.insert(rest, leaf),
                (PathNode::Leaf(_), false) | (PathNode::Branch(_), true) => return Err(PathConflict::Inside),
            },
        }
        Ok(())
    }
}

/// A set field whose way leads through something that is not an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NotAnObject {
    /// Path of the thing; empty for the value itself.
    pub(crate) path: String,
    /// What it is.
    pub(crate) found: &'static str,
}

/// Replacements of parts of a text, in any order, never overlapping.
#[derive(Debug, Default)]
pub(crate) struct Splices {
    list: Vec<(usize, usize, String)>,
}

impl Splices {
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The text with all replacements made.
    pub(crate) fn apply(mut self, text: &str) -> String {
        self.list.sort_by_key(|(start, end, _)| (*start, *end));
        let grown: usize = self.list.iter().map(|(_, _, with)| with.len()).sum();
        let mut out = String::with_capacity(text.len() + grown);
        let mut done = 0;
        for (start, end, with) in self.list {
            out.push_str(&text[done..start]);
            out.push_str(&with);
            done = end;
        }
        out.push_str(&text[done..]);
        out
    }

    fn push(&mut self, start: usize, end: usize, with: String) {
        self.list.push((start, end, with));
    }

    /// Replaces every field of `tree` that is there with `with`.
    pub(crate) fn replace<L>(&mut self, tree: &PathTree<L>, object: Node<'_>, with: &str) {
        for (name, child) in &tree.children {
            let Some(value) = object.get(name) else { continue };
            match child {
                PathNode::Branch(branch) => self.replace(branch, value, with),
                PathNode::Leaf(_) => {
                    let (start, end) = value.span();
                    if value.raw() != with {
                        self.push(start, end, with.to_owned());
                    }
                }
            }
        }
    }

    /// Removes every field of `tree` that is there, with its comma.
    pub(crate) fn remove<L>(&mut self, tree: &PathTree<L>, object: Node<'_>) {
        let mut kept_before = false;
        let mut previous_end = 0;
        let mut members = object.members().peekable();
        while let Some(member) = members.next() {
            let (start, _) = member.name.span();
            let (_, end) = member.value.span();
            let name = member.name.string();
            match tree.children.iter().find(|(child, _)| *child == name) {
                Some((_, PathNode::Leaf(_))) => match members.peek() {
                    _ if kept_before => self.push(previous_end, end, String::new()),
                    Some(next) => self.push(start, next.name.span().0, String::new()),
                    None => self.push(start, end, String::new()),
                },
                Some((_, PathNode::Branch(branch))) => {
                    self.remove(branch, member.value);
                    kept_before = true;
                }
                None => kept_before = true,
            }
            previous_end = end;
        }
    }

    /// Sets every field of `tree` to the JSON text that `value` gives for its leaf; missing objects are made, new
    /// members come after the others in the order of the tree.
    pub(crate) fn set<'v, L>(
        &mut self,
        tree: &PathTree<L>,
        object: Node<'_>,
        value: &impl Fn(&L) -> &'v str,
    ) -> Result<(), NotAnObject> {
        self.set_in(tree, object, value, "")
    }

    fn set_in<'v, L>(
        &mut self,
        tree: &PathTree<L>,
        object: Node<'_>,
        value: &impl Fn(&L) -> &'v str,
        path: &str,
    ) -> Result<(), NotAnObject> {
        if object.kind() != Kind::Object {
            return Err(NotAnObject { path: path.to_owned(), found: object.type_name() });
        }
        let mut added = String::new();
        for (name, child) in &tree.children {
            match (object.get(name), child) {
                (Some(there), PathNode::Leaf(leaf)) => {
                    let (start, end) = there.span();
                    self.push(start, end, value(leaf).to_owned());
                }
                (Some(there), PathNode::Branch(branch)) => {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    self.set_in(branch, there, value, &path)?;
                }
                (None, child) => {
                    added.push(',');
                    write_member(&mut added, name, child, value);
                }
            }
        }
        if !added.is_empty() {
            if let Some(last) = object.members().last() {
                let (_, end) = last.value.span();
                self.push(end, end, added);
            } else {
                let (start, _) = object.span();
                self.push(start + 1, start + 1, added.split_off(1));
            }
        }
        Ok(())
    }
}

fn write_member<'v, L>(out: &mut String, name: &str, child: &PathNode<L>, value: &impl Fn(&L) -> &'v str) {
    write_string(out, name);
    out.push(':');
    match child {
        PathNode::Leaf(leaf) => out.push_str(value(leaf)),
        PathNode::Branch(branch) => {
            out.push('{');
            for (at, (name, child)) in branch.children.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write_member(out, name, child, value);
            }
            out.push('}');
        }
    }
}
