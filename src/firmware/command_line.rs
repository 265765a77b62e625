//! Turns the kernel's command line into answers: which of our words are on it.
//!
//! The kernel keeps words with a dot for modules' parameters and hands only the others to process 1,
//! so ours, `ocellus.NAME`, are read from proc(5).

use std::fs;

/// Whether the word `ocellus.NAME` is there.
pub(super) fn has(name: &str) -> bool {
    // Without it nothing optional is asked for.
    contains(&fs::read_to_string("/proc/cmdline").unwrap_or_default(), name)
}

fn contains(line: &str, name: &str) -> bool {
    line.split_whitespace().any(|word| word.strip_prefix("ocellus.") == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_counts_only_as_a_whole() {
        let line = "console=tty0 ocellus.card xocellus.vivid ocellus.vivid=1 quiet\n";
        assert!(contains(line, "card"));
        for name in ["vivid", "car", "", "quiet"] {
            assert!(!contains(line, name), "{name}");
        }
    }
}
