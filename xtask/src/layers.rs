//! The layers of the workspace: which crate may depend on which, as docs/architecture.md says.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::Failure;
use crate::workspace::Workspace;

const DOCUMENT: &str = "docs/architecture.md";

/// Dependencies of a crate inside the workspace.
type Edges = BTreeMap<String, BTreeSet<String>>;

/// Compares the workspace with the document.
pub(crate) fn check(workspace: &Workspace) -> Result<(), Failure> {
    let path = workspace.root().join(DOCUMENT);
    let document =
        std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mistakes = mistakes(&dependencies(workspace.metadata()), &table(&document));
    if mistakes.is_empty() {
        Ok(())
    } else {
        Err(mistakes.join("\n"))
    }
}

fn mistakes(actual: &Edges, allowed: &Edges) -> Vec<String> {
    let mut mistakes = Vec::new();
    for (name, uses) in actual {
        let Some(may_use) = allowed.get(name) else {
            mistakes.push(format!("{DOCUMENT} does not list the crate `{name}`"));
            continue;
        };
        for used in uses.difference(may_use) {
            mistakes.push(format!(
                "`{name}` uses `{used}`, which {DOCUMENT} does not list: use it from a higher \
                 layer, or change the document with a reason"
            ));
        }
    }
    mistakes
}

/// The table of crates in the document: rows of `| crate | used crate, used crate |` below the head
/// `| crate | uses |`.
fn table(document: &str) -> Edges {
    let mut edges = Edges::new();
    let rows = document
        .lines()
        .skip_while(|line| cells(line) != Some(("crate", "uses")))
        .skip(2)
        .map_while(cells);
    for (name, uses) in rows {
        let uses = uses
            .split(',')
            .map(str::trim)
            .filter(|used| !used.is_empty());
        edges.insert(name.to_owned(), uses.map(str::to_owned).collect());
    }
    edges
}

fn cells(line: &str) -> Option<(&str, &str)> {
    let line = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    let (first, second) = line.split_once('|')?;
    Some((first.trim(), second.trim()))
}

/// Normal dependencies between the members, from `cargo metadata --no-deps`. A dependency of a member
/// that has a path is another member.
fn dependencies(metadata: &Value) -> Edges {
    let list = |value: &Value, key: &str| {
        let list = value.get(key).and_then(Value::as_array);
        list.cloned().unwrap_or_default()
    };
    let name = |value: &Value| value.get("name")?.as_str().map(str::to_owned);
    let mut edges = Edges::new();
    for package in list(metadata, "packages") {
        let Some(package_name) = name(&package) else {
            continue;
        };
        let uses = list(&package, "dependencies")
            .iter()
            .filter(|dependency| dependency.get("path").is_some_and(Value::is_string))
            .filter(|dependency| dependency.get("kind").is_none_or(Value::is_null))
            .filter_map(name)
            .collect();
        edges.insert(package_name, uses);
    }
    edges
}

#[cfg(test)]
mod tests;
