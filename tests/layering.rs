//! The import table of the design: which module may name which.
//!
//! Reads the sources; `time` and `stats` are free to all. `lib.rs`, `main.rs` and `run` put
//! everything together and may name everything.
#![allow(clippy::unwrap_used, reason = "tests may fail")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Module, and what of the crate it may name besides `time`, `stats` and itself.
const MAY_NAME: [(&str, &[&str]); 20] = [
    ("auth", &[]),
    ("time", &[]),
    ("stats", &[]),
    ("h264", &[]),
    ("frame", &[]),
    ("rtp", &["h264"]),
    ("fanout", &["h264", "rtp"]),
    ("rtsp", &["auth", "rtp", "h264"]),
    ("net", &[]),
    ("ring", &["h264"]),
    ("capture", &["frame", "h264", "sys"]),
    ("picture", &["frame"]),
    ("encode", &["frame", "h264", "sys"]),
    ("produce", &["capture", "picture", "encode", "frame", "ring", "h264", "sys"]),
    ("serve", &["ring", "rtp", "rtsp", "fanout", "h264", "sys"]),
    // Of `sys` only what the test below says.
    ("control", &["auth", "sys", "ring", "h264", "picture", "frame"]),
    ("firmware", &["config", "net", "sys"]),
    ("config", &[]),
    ("cli", &["config"]),
    ("sys", &[]),
];

/// Modules that may read the clock.
const MAY_READ_CLOCK: [&str; 4] = ["produce", "serve", "control", "firmware"];

/// Modules that never touch a socket, a file, a thread or the system.
const NO_IO: [&str; 9] =
    ["auth", "time", "h264", "frame", "rtp", "fanout", "rtsp", "net", "picture"];

const IO_WORDS: [&str; 9] = [
    "std::fs",
    "std::thread",
    "std::io",
    "std::os",
    "std::process",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "nix::",
];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The sources of `src` by module, tests and comments cut off.
fn modules() -> BTreeMap<String, Vec<(PathBuf, String)>> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut modules: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for path in sources(&src) {
        let inside = path.strip_prefix(&src).unwrap();
        let module = inside.components().next().unwrap().as_os_str().to_str().unwrap();
        let is_vendored = inside.components().any(|part| part.as_os_str() == "v4l2-sys-mit");
        let is_test = inside
            .components()
            .any(|part| part.as_os_str() == "tests.rs" || part.as_os_str() == "tests");
        if is_vendored || is_test {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("\nmod tests {").next().unwrap();
        let code: Vec<&str> =
            code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let module = module.trim_end_matches(".rs").to_owned();
        modules.entry(module).or_default().push((inside.to_owned(), code.join("\n")));
    }
    for root in ["build", "lib", "main", "run"] {
        modules.remove(root);
    }
    modules
}

/// The modules of the crate that `code` names.
fn named(code: &str) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for after in code.split("crate::").skip(1) {
        if let Some(list) = after.strip_prefix('{') {
            let list = list.split('}').next().unwrap();
            names.extend(list.split(',').map(|item| leading_word(item.trim())));
        } else {
            names.insert(leading_word(after));
        }
    }
    names.remove("");
    names
}

fn leading_word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

#[test]
fn no_module_names_what_the_table_does_not_allow() {
    let mut broken = Vec::new();
    let modules = modules();
    for (module, files) in &modules {
        let Some((_, allowed)) = MAY_NAME.iter().find(|(name, _)| name == module) else {
            broken.push(format!("{module} is not in the table"));
            continue;
        };
        for (path, code) in files {
            for name in named(code) {
                let is_free = ["time", "stats", module.as_str()].contains(&name);
                if !is_free && !allowed.contains(&name) {
                    broken.push(format!("{} names {name}", path.display()));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert_eq!(modules.len(), MAY_NAME.len(), "every row of the table has a module");
}

#[test]
fn only_the_threads_read_the_clock() {
    for (module, files) in modules() {
        for (path, code) in files {
            let names_it = code.contains("clock::now") || code.contains("clock::wall");
            let may = MAY_READ_CLOCK.contains(&module.as_str());
            assert!(!names_it || may, "{} reads the clock", path.display());
        }
    }
}

#[test]
fn the_web_side_names_of_the_system_only_connections_and_its_own_numbers() {
    let may = ["ByteStream", "Wake", "clock", "process", "tcp"];
    for (path, code) in &modules()["control"] {
        for after in code.split("crate::sys::").skip(1) {
            let list =
                after.strip_prefix('{').map_or(after, |list| list.split('}').next().unwrap());
            let names =
                if list.len() < after.len() { list.split(',').collect() } else { vec![list] };
            for name in names {
                let name = leading_word(name.trim());
                assert!(may.contains(&name), "{} names sys::{name}", path.display());
            }
        }
    }
}

#[test]
fn encryption_comes_without_a_library_in_c_of_its_own() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock");
    let lock = fs::read_to_string(path).unwrap();
    for name in ["aws-lc-sys", "aws-lc-rs", "openssl-sys", "native-tls"] {
        assert!(!lock.contains(&format!("name = \"{name}\"")), "{name} was drawn in");
    }
    assert!(lock.contains("name = \"ring\""));
}

#[test]
fn protocol_code_does_no_input_or_output() {
    for (module, files) in modules().into_iter().filter(|(name, _)| NO_IO.contains(&&**name)) {
        for (path, code) in files {
            for word in IO_WORDS {
                assert!(!code.contains(word), "{module}: {} names {word}", path.display());
            }
        }
    }
}

#[test]
fn the_checks_see_what_they_are_to_forbid() {
    let code = "use crate::serve::Hub;\nuse crate::{rtp, sys::clock};\nlet x = crate::h264::y();";
    assert_eq!(named(code), BTreeSet::from(["serve", "rtp", "sys", "h264"]));
}
