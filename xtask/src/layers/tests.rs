//! The document's table, Cargo's answer, and the comparison.

use serde_json::json;

use super::{Edges, dependencies, mistakes, table};

fn edges(pairs: &[(&str, &[&str])]) -> Edges {
    pairs
        .iter()
        .map(|(name, uses)| {
            let uses = uses.iter().map(|used| (*used).to_owned()).collect();
            ((*name).to_owned(), uses)
        })
        .collect()
}

#[test]
fn the_table_ends_where_the_text_goes_on() {
    let document = "text\n| other | table |\n|---|---|\n| x | y |\n\n\
        | crate | uses |\n|---|---|\n| arch | |\n| vmm | arch, bus |\n\n| thread | does |\n|---|---|\n";
    assert_eq!(
        table(document),
        edges(&[("arch", &[]), ("vmm", &["arch", "bus"])])
    );
    assert!(table("no table").is_empty());
}

#[test]
fn only_normal_dependencies_inside_the_workspace_count() {
    let metadata = json!({ "packages": [
        { "name": "vmm", "dependencies": [
            { "name": "bus", "path": "/w/bus", "kind": null },
            { "name": "libc", "kind": null },
            { "name": "tests", "path": "/w/tests", "kind": "dev" },
        ] },
        { "name": "bus", "dependencies": [] },
    ] });
    assert_eq!(
        dependencies(&metadata),
        edges(&[("bus", &[]), ("vmm", &["bus"])])
    );
}

#[test]
fn edges_and_crates_outside_the_table_are_mistakes() {
    let allowed = edges(&[("bus", &[]), ("vmm", &["bus"])]);
    assert!(mistakes(&allowed, &allowed).is_empty());
    assert!(mistakes(&edges(&[("vmm", &[])]), &allowed).is_empty());
    let actual = edges(&[("bus", &["vmm"]), ("new", &[])]);
    let mistakes = mistakes(&actual, &allowed);
    assert_eq!(mistakes.len(), 2);
    assert!(mistakes[0].contains("`bus` uses `vmm`"), "{mistakes:?}");
    assert!(mistakes[1].contains("`new`"), "{mistakes:?}");
}
