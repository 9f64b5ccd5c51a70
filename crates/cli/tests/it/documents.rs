//! What the documents say of the tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Every test that `docs/promises.md` names is there.
#[test]
fn the_tests_that_the_promises_name_exist() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut functions = BTreeSet::new();
    collect(crates, &mut functions);
    let text = fs::read_to_string(crates.parent().unwrap().join("docs/promises.md")).unwrap();
    let quoted = text.split('`').skip(1).step_by(2);
    let is_name = |it: &&str| {
        it.contains('_')
            && it.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    let named: BTreeSet<&str> = quoted.filter(is_name).collect();
    assert!(named.len() > 20, "{named:?}");
    let missing: Vec<&&str> = named.iter().filter(|name| !functions.contains(**name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// The names of all functions in the sources under `directory`.
fn collect(directory: &Path, functions: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, functions);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            for line in fs::read_to_string(&path).unwrap().lines() {
                if let Some(name) = line.trim_start().trim_start_matches("async ").strip_prefix("fn ") {
                    functions.insert(name.split(['(', '<']).next().unwrap().to_owned());
                }
            }
        }
    }
}
