use std::fs;

use crate::schema;

/// `UPDATE=1 cargo nextest run -p settings schema` rewrites the file.
#[test]
fn the_schema_is_checked_in() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schema.json");
    let current = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path, &current).unwrap();
    }
    let checked_in = fs::read_to_string(path).unwrap_or_default();
    assert!(checked_in == current, "schema.json is out of date: run this test with UPDATE=1");
}
