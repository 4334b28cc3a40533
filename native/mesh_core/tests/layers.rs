//! Imports run one way: no file imports, directly or through others, a file that imports it, and the rooms
//! of `mesh_core` stand above each other. Read from the sources of the three crates.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms of mesh_core from the top down: each may import those behind it. `tests` are unit tests that
/// need to reach inside.
const ROOMS: [&str; 12] = [
    "tests",
    "gateway",
    "serve",
    "upstream",
    "routing",
    "calls",
    "mesh",
    "transport",
    "observe",
    "runtime",
    "error",
    "config",
];

type Module = Vec<String>;
/// Each module and what it imports.
type Imports = BTreeMap<Module, BTreeSet<Module>>;

#[test]
fn no_file_imports_a_file_that_imports_it() {
    for name in ["mesh_wire", "mesh_core", "mesh_nif"] {
        let imports = imports(name);
        for module in imports.keys() {
            if let Some(mut way) = way(&imports, module, module, &mut BTreeSet::new()) {
                way.insert(0, module.clone());
                let way: Vec<_> = way.iter().map(file).collect();
                panic!("{name}/src: imports run in a circle: {}", way.join(" > "));
            }
        }
    }
}

#[test]
fn rooms_import_only_rooms_below() {
    let imports = imports("mesh_core");
    for (module, imported) in &imports {
        let Some(room) = module.first() else { continue };
        let level = |room: &String| ROOMS.iter().position(|r| r == room);
        let Some(own) = level(room) else { panic!("src/{room} is not in ROOMS") };
        for other in imported.iter().filter_map(|other| other.first()) {
            let other_level = level(other).unwrap_or_else(|| panic!("src/{other} is not in ROOMS"));
            assert!(own <= other_level, "{}: {room} must not import {other}", file(module));
        }
    }
}

/// A way from one module to another along imports.
fn way(
    imports: &Imports,
    from: &Module,
    to: &Module,
    seen: &mut BTreeSet<Module>,
) -> Option<Vec<Module>> {
    for next in &imports[from] {
        if next == to {
            return Some(vec![next.clone()]);
        }
        if seen.insert(next.clone())
            && let Some(mut rest) = way(imports, next, to, seen)
        {
            rest.insert(0, next.clone());
            return Some(rest);
        }
    }
    None
}

fn file(module: &Module) -> String {
    if module.is_empty() { "lib".into() } else { module.join("/") }
}

fn imports(name: &str) -> Imports {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name).join("src");
    let mut files = Vec::new();
    collect(&src, &mut files);
    let modules: BTreeMap<Module, PathBuf> =
        files.into_iter().map(|path| (module(path.strip_prefix(&src).unwrap()), path)).collect();
    assert!(modules.len() > 3, "{} has no sources", src.display());
    let of = |own: &Module, path: &Path| {
        let text = fs::read_to_string(path).unwrap();
        let mut found = BTreeSet::new();
        for mut path in paths(&text) {
            let absolute = match path.first().map(String::as_str) {
                Some("crate") => path.split_off(1),
                Some("super") => {
                    let ups = path.iter().take_while(|part| *part == "super").count();
                    [&own[..own.len().saturating_sub(ups)], &path[ups..]].concat()
                }
                _ => [&own[..], &path[..]].concat(),
            };
            // The longest part of the path that is a module.
            let target = (0..=absolute.len()).rev().map(|n| absolute[..n].to_vec());
            found.extend(target.into_iter().find(|target| modules.contains_key(target)));
        }
        found.remove(own);
        found
    };
    modules.iter().map(|(own, path)| (own.clone(), of(own, path))).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn module(path: &Path) -> Module {
    let parts = path.with_extension("");
    let parts = parts.iter().map(|part| part.to_str().unwrap().to_string());
    parts.filter(|part| part != "mod" && part != "lib").collect()
}

/// All paths that begin with `crate` or `super`, and those of `use` declarations. Unit tests at the end of a
/// file may import what they like.
fn paths(text: &str) -> Vec<Vec<String>> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or("");
    let code: Vec<_> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let mut found = Vec::new();
    for start in ["use ", "crate::", "super::"] {
        for (at, _) in code.match_indices(start) {
            let begins = code[..at].chars().next_back().is_none_or(|c| !is_name(c) && c != ':');
            if begins {
                let from = if start == "use " { at + start.len() } else { at };
                tree(&code[from..], &mut Vec::new(), &mut found);
            }
        }
    }
    found
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Takes one tree of a `use` declaration apart; returns how long it is.
fn tree(text: &str, prefix: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> usize {
    let depth = prefix.len();
    let mut at = 0;
    loop {
        let rest = &text[at..];
        let name = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        if rest.starts_with('{') {
            at += 1;
            while !text[at..].starts_with('}') {
                at += tree(&text[at..], prefix, found).max(1);
                let next = |c: char| c.is_whitespace() || c == ',';
                at += text[at..].find(|c| !next(c)).unwrap_or(text.len() - at);
            }
            at += 1;
            break;
        }
        prefix.push(rest[..name].to_string());
        at += name;
        if !text[at..].starts_with("::") {
            found.push(prefix.clone());
            // A name after `as` is not part of the path.
            let end = |c: char| matches!(c, ',' | '}' | ';' | '\n');
            if text[at..].starts_with(" as ") {
                at += text[at..].find(end).unwrap_or(0);
            }
            break;
        }
        at += 2;
    }
    prefix.truncate(depth);
    at
}
