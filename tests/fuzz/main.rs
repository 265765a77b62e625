//! Replays the inputs that the fuzzer has kept: those that broke a property once, and those that
//! reach what no others do. `scripts/fuzz` looks for more.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "tests may fail, and draw small numbers from large ones"
)]

use std::path::Path;

mod targets;

#[test]
fn no_input_that_was_kept_breaks_a_property() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    for (name, target) in targets::TARGETS {
        let mut count = 0;
        for entry in std::fs::read_dir(corpus.join(name)).unwrap() {
            target(&std::fs::read(entry.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 0, "nothing is kept for {name}");
    }
}
