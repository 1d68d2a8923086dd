//! The rules of the structure; each violation is a sentence.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Crate, Module};

/// Layers from the bottom up; modules in one entry may not use each other. `config` holds flags made of lower
/// layers' types and is read by the outermost ones only.
const LAYERS: &[&[&str]] = &[
    &["types", "native", "telemetry", "fail_points", "own_files"],
    &["outbound"],
    &["structure"],
    &["formats"],
    &["ffmpeg"],
    &["decode_child"],
    &["media"],
    &["preprocess"],
    &["manifest"],
    &["model"],
    &["embed"],
    &["ledger", "store"],
    &["sqlite"],
    &["files"],
    &["catalog"],
    &["codes"],
    &["index"],
    &["search"],
    &["jobs"],
    &["webhooks", "backup"],
    &["collection"],
    &["ingest"],
    &["standing"],
    &["library"],
    &["access"],
    &["connections", "http_kit"],
    &["http_intake"],
    &["http", "config"],
    &["cli"],
];
/// Above all layers.
const OUTSIDE: &[&str] = &["lib", "main", "fuzz", ""];

/// What runs in the decode child: whatever it used would be in the sandbox, too.
const CHILD: &[&str] = &["decode_child", "ffmpeg", "formats", "structure"];
/// All that the child may use besides its own.
const CHILD_USES: &[&str] = &["types", "native"];

/// A folder of `http` per resource. What they share lies in `http_kit` and `http_intake`, layers below them.
const RESOURCES: &[&str] = &["about", "access", "assets", "jobs", "keeping", "search", "standing"];

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

fn top(module: &Module) -> &str {
    module.first().map_or("", String::as_str)
}

/// Imports of a layer above, or beside.
pub fn upward(tree: &Crate) -> Vec<String> {
    let mut found = Vec::new();
    for module in tree.files.keys() {
        let name = top(module);
        if layer_of(name).is_none() && !OUTSIDE.contains(&name) {
            found.push(format!("{}: the module has no layer", tree.path(module).display()));
        }
    }
    for (module, (path, source)) in &tree.files {
        let Some(own) = layer_of(top(module)) else { continue };
        // Also what is only handed on.
        let all = source.imports.iter().map(|import| &import.path).chain(&source.paths);
        let used: BTreeSet<&str> = BTreeSet::new();
        let used = all.filter_map(|path| tree.definer(module, path)).fold(used, |mut used, definer| {
            used.extend(LAYERS.iter().copied().flatten().copied().filter(|layer| *layer == top(&definer)));
            used
        });
        for used in used.into_iter().filter(|used| *used != top(module)) {
            if layer_of(used).is_some_and(|layer| layer >= own) {
                found.push(format!("{} uses {used}", path.display()));
            }
        }
    }
    found
}

/// Files that import each other in a circle, each with the arrows inside it.
pub fn circles(tree: &Crate) -> Vec<String> {
    let mut arrows = tree.arrows();
    // A folder's `mod.rs` holds the words that its files share: what they take from it counts for no circle.
    for (from, to) in &mut arrows {
        to.retain(|to, _| !from.starts_with(to));
    }
    let mut found = Vec::new();
    for group in strongly_connected(&arrows) {
        let mut lines = vec![format!("{} files:", group.len())];
        for from in &group {
            for (to, names) in arrows.get(from).into_iter().flatten().filter(|(to, _)| group.contains(*to)) {
                let names: Vec<_> = names.iter().map(String::as_str).collect();
                lines.push(format!(
                    "  {} -> {}: {}",
                    tree.path(from).display(),
                    tree.path(to).display(),
                    names.join(", ")
                ));
            }
        }
        found.push(lines.join("\n"));
    }
    found
}

type Arrows = BTreeMap<Module, BTreeMap<Module, BTreeSet<String>>>;

/// Groups of more than one file that reach each other.
fn strongly_connected(arrows: &Arrows) -> Vec<BTreeSet<Module>> {
    let reach = |from: &Module| {
        let (mut seen, mut ahead) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(at) = ahead.pop() {
            for next in arrows.get(&at).into_iter().flat_map(BTreeMap::keys) {
                if seen.insert(next.clone()) {
                    ahead.push(next.clone());
                }
            }
        }
        seen
    };
    let reached: BTreeMap<Module, BTreeSet<Module>> =
        arrows.keys().map(|module| (module.clone(), reach(module))).collect();
    let mut groups: Vec<BTreeSet<Module>> = Vec::new();
    for (module, seen) in &reached {
        if seen.contains(module) && !groups.iter().any(|group| group.contains(module)) {
            let back = |other: &&Module| reached.get(*other).is_some_and(|seen| seen.contains(module));
            groups.push(seen.iter().filter(back).cloned().collect());
        }
    }
    groups
}

/// Within `http`: imports of one resource from another.
pub fn between_resources(tree: &Crate) -> Vec<String> {
    let mut found = Vec::new();
    for module in tree.files.keys().filter(|module| top(module) == "http" && module.len() > 2) {
        if !RESOURCES.contains(&module[1].as_str()) {
            found.push(format!("{}: the folder is no resource", tree.path(module).display()));
        }
    }
    let resource = |module: &Module| {
        let second = module.get(1).filter(|_| top(module) == "http")?;
        RESOURCES.iter().copied().find(|resource| second == resource)
    };
    for (module, (path, source)) in &tree.files {
        let Some(own) = resource(module) else { continue };
        // Also what is only handed on.
        let all = source.imports.iter().map(|import| &import.path).chain(&source.paths);
        let used: BTreeSet<Module> = all.filter_map(|path| tree.definer(module, path)).collect();
        for used in used.iter().filter(|used| resource(used).is_some_and(|other| other != own)) {
            found.push(format!("{} uses {}", path.display(), tree.path(used).display()));
        }
    }
    found
}

/// What the code of the decode child takes from the server.
pub fn leaks_of_the_child(tree: &Crate) -> Vec<String> {
    let is = |module: &Module, names: &[&str]| names.contains(&top(module));
    let mut found = Vec::new();
    for (from, (path, source)) in tree.files.iter().filter(|(from, _)| is(from, CHILD)) {
        // Also what is only handed on.
        let all = source.imports.iter().map(|import| &import.path).chain(&source.paths);
        let used: BTreeSet<Module> = all.filter_map(|path| tree.definer(from, path)).collect();
        for used in used.iter().filter(|used| !is(used, CHILD) && !is(used, CHILD_USES)) {
            found.push(format!("{} uses {}", path.display(), tree.path(used).display()));
        }
    }
    found
}
