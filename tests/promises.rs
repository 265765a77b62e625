//! What the README names as a proof is there.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test reads files, and may fail"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What stands between back-ticks in the lines of this text.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// Whether this is the name of a test: a sentence in lower case.
fn is_test(word: &str) -> bool {
    word.matches('_').count() >= 3
        && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

fn functions(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path: PathBuf = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_none_or(|name| name != "target") {
            functions(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            // `device` has no attributes: its checks are a table of names.
            let named = text.lines().map(str::trim_start).filter_map(|line| {
                let rest = line.strip_prefix("fn ").or_else(|| line.strip_prefix("(\""))?;
                Some(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
            });
            found.extend(named);
        }
    }
}

#[test]
fn every_test_script_and_folder_that_the_readme_names_exists() {
    let text = fs::read_to_string(root().join("README.md")).unwrap();
    let mut tests = BTreeSet::new();
    for folder in ["src", "tests"] {
        functions(&root().join(folder), &mut tests);
    }
    let is_path =
        |word: &&str| ["scripts/", "tests/", "src/"].iter().any(|it| word.starts_with(it));
    let paths = quoted(&text).filter(is_path).map(|word| word.split(' ').next().unwrap());
    let lost_paths: Vec<_> = paths.filter(|path| !root().join(path).exists()).collect();
    let named: Vec<_> = quoted(&text).filter(|word| is_test(word)).collect();
    let lost_tests: Vec<_> = named.iter().filter(|name| !tests.contains(**name)).collect();
    assert!(lost_paths.is_empty() && lost_tests.is_empty(), "{lost_paths:?} {lost_tests:?}");
    assert!(named.len() > 20, "the security page names its tests: {named:?}");
}
