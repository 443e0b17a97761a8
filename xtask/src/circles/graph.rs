//! Graph of imports, and its circles.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Import of one module by another, and the place where it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ModuleImport {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) at: String,
}

/// Modules and their imports; of several imports of the same module, only the first is kept.
#[derive(Debug)]
pub(super) struct ImportGraph {
    imports: BTreeMap<String, BTreeMap<String, String>>,
}

impl ImportGraph {
    /// Creates a graph without imports.
    pub(super) fn new(modules: impl IntoIterator<Item = String>) -> Self {
        Self { imports: modules.into_iter().map(|name| (name, BTreeMap::new())).collect() }
    }

    /// Returns the number of modules.
    pub(super) fn len(&self) -> usize {
        self.imports.len()
    }

    /// Adds an import; a module that imports itself is ignored.
    pub(super) fn add(&mut self, ModuleImport { from, to, at }: ModuleImport) {
        if from != to {
            self.imports.entry(from).or_default().entry(to).or_insert(at);
        }
    }

    /// Returns for each module with children the graph of these children, each joined with all modules below it.
    /// The module itself is left out: it may use its children, and they may use it.
    pub(super) fn by_parent(&self) -> BTreeMap<&str, Self> {
        let parents = self.imports.keys().filter_map(|name| Some(name.rsplit_once("::")?.0));
        parents.map(|parent| (parent, self.children_of(parent))).collect()
    }

    fn children_of(&self, parent: &str) -> Self {
        let child = |name: &str| {
            let below = name.strip_prefix(parent)?.strip_prefix("::")?;
            below.split("::").next().map(str::to_owned)
        };
        let mut children = Self::new(self.imports.keys().filter_map(|name| child(name)));
        for (from, targets) in &self.imports {
            for (to, at) in targets {
                if let (Some(from), Some(to)) = (child(from), child(to)) {
                    children.add(ModuleImport { from, to, at: at.clone() });
                }
            }
        }
        children
    }

    /// Returns the largest sets of modules that reach each other, each set sorted, the largest set first.
    pub(super) fn circles(&self) -> Vec<Vec<String>> {
        let reached: BTreeMap<&str, BTreeSet<&str>> =
            self.imports.keys().map(|name| (name.as_str(), self.reached_from(name))).collect();
        let mut circles = BTreeSet::new();
        for (name, targets) in &reached {
            let back = targets.iter().filter(|target| reached[*target].contains(name));
            let circle: Vec<String> = back.map(|target| (*target).to_owned()).collect();
            if circle.len() > 1 {
                circles.insert(circle);
            }
        }
        let mut circles: Vec<_> = circles.into_iter().collect();
        circles.sort_by_key(|circle| std::cmp::Reverse(circle.len()));
        circles
    }

    fn reached_from<'a>(&'a self, start: &str) -> BTreeSet<&'a str> {
        let mut reached = BTreeSet::new();
        let mut next: Vec<&str> = self.targets(start).collect();
        while let Some(name) = next.pop() {
            if reached.insert(name) {
                next.extend(self.targets(name));
            }
        }
        reached
    }

    fn targets(&self, name: &str) -> impl Iterator<Item = &str> {
        self.imports.get(name).into_iter().flatten().map(|(to, _)| to.as_str())
    }

    /// Returns the imports of a shortest circle through `start`; none if there is no circle.
    pub(super) fn shortest_through(&self, start: &str) -> Vec<ModuleImport> {
        let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
        let mut next = VecDeque::from([start]);
        while let Some(from) = next.pop_front() {
            for to in self.targets(from) {
                if let std::collections::btree_map::Entry::Vacant(entry) = came_from.entry(to) {
                    entry.insert(from);
                    next.push_back(to);
                }
            }
        }
        let mut circle = Vec::new();
        let mut to = start;
        while let Some(&from) = came_from.get(to) {
            let at = self.imports[from][to].clone();
            circle.push(ModuleImport { from: from.to_owned(), to: to.to_owned(), at });
            to = from;
            if to == start {
                break;
            }
        }
        circle.reverse();
        circle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(imports: &[(&str, &str)]) -> ImportGraph {
        let names = imports.iter().flat_map(|(from, to)| [*from, *to]).map(str::to_owned);
        let mut graph = ImportGraph::new(names);
        for (from, to) in imports {
            graph.add(ModuleImport { from: (*from).into(), to: (*to).into(), at: "x.rs:1".into() });
        }
        graph
    }

    fn shown(imports: &[ModuleImport]) -> Vec<(&str, &str)> {
        imports.iter().map(|import| (import.from.as_str(), import.to.as_str())).collect()
    }

    #[test]
    fn a_tree_has_no_circles() {
        let tree = graph(&[("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")]);
        assert!(tree.circles().is_empty());
        assert!(tree.shortest_through("a").is_empty());
    }

    #[test]
    fn modules_that_reach_each_other_are_one_circle() {
        let circles = graph(&[
            ("a", "b"),
            ("b", "c"),
            ("c", "b"),
            ("c", "d"),
            ("d", "b"),
            ("x", "y"),
            ("y", "x"),
        ]);
        assert_eq!(circles.circles(), [vec!["b", "c", "d"], vec!["x", "y"]]);
    }

    #[test]
    fn the_example_is_a_shortest_circle() {
        let circles = graph(&[("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("d", "c")]);
        assert_eq!(shown(&circles.shortest_through("c")), [("c", "d"), ("d", "c")]);
        assert_eq!(shown(&circles.shortest_through("a")), [("a", "b"), ("b", "c"), ("c", "a")]);
    }

    #[test]
    fn children_stand_for_all_modules_below_them_and_their_parent_is_left_out() {
        let files = graph(&[
            ("crate::a::one", "crate::b"),
            ("crate::b::two", "crate::a"),
            ("crate", "crate::a"),
            ("crate::a", "crate"),
            ("crate::b", "crate::b::two"),
            ("crate::b::two", "crate::b"),
        ]);
        assert_eq!(files.by_parent()["crate"].circles(), [vec!["a", "b"]]);
        assert!(files.by_parent()["crate::b"].circles().is_empty());
    }
}
