//! Turns proc(5) into one line of the log: what the running system takes.

use std::fs;

/// Says how much memory is used, and how much of it is this process's own.
pub(super) fn report() {
    let system = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let own = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let used = field(&system, "MemTotal").zip(field(&system, "MemAvailable"));
    let Some(((total, available), own)) = used.zip(field(&own, "RssAnon")) else {
        return;
    };
    let used = total.saturating_sub(available);
    log::info!("firmware: memory used_kb={used} total_kb={total} pid1_anon_kb={own}");
}

/// `NAME:   123 kB`.
fn field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text =
            "MemTotal:         491520 kB\nMemAvailable:     400000 kB\nHugePages_Total:  0\n";
        assert_eq!(field(text, "MemTotal"), Some(491_520));
        assert_eq!(field(text, "MemAvailable"), Some(400_000));
        assert_eq!(field(text, "Mem"), None);
        assert_eq!(field(text, "HugePages_Total"), None);
    }
}
