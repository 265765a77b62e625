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

/// What the kernel's own words `NAME=VALUE` say, in their order.
pub(super) fn values(name: &str) -> Vec<String> {
    values_in(&fs::read_to_string("/proc/cmdline").unwrap_or_default(), name)
}

fn values_in(line: &str, name: &str) -> Vec<String> {
    let value = |word: &str| word.strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
    line.split_whitespace().filter_map(value).collect()
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

    #[test]
    fn a_name_may_have_several_values() {
        let line = "console=ttyS1,115200 xconsole=no console=tty0 console consoles=no quiet\n";
        assert_eq!(values_in(line, "console"), ["ttyS1,115200", "tty0"]);
        assert_eq!(values_in(line, "panic"), [""; 0]);
    }
}
