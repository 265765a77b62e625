//! Turns names and device aliases into loaded kernel modules, with what they depend on.
//!
//! depmod(8): modules.dep and modules.alias of the running kernel; finit_module(2). /etc/modules is
//! the board's list (format: board/common/modules).
//!
//! Not implemented: soft dependencies, `install` lines and other parts of modprobe.d(5).

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::sys::stat::Mode;

use super::command_line;

/// What the image knows of modules.
#[derive(Debug)]
pub(super) struct Modules {
    folder: PathBuf,
    /// A module's own file, then those it depends on, the last to be loaded first.
    files: HashMap<String, Vec<String>>,
    aliases: Vec<Alias>,
    list: Vec<Entry>,
    /// Names that need no second attempt.
    done: Mutex<HashSet<String>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Alias {
    pattern: String,
    module: String,
}

/// A line of /etc/modules.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    module: String,
    parameters: String,
    at_start: bool,
}

impl Modules {
    /// Reads the tables; what cannot be read counts as empty.
    pub(super) fn read() -> Self {
        let release = nix::sys::utsname::uname().map(|names| names.release().to_owned());
        let folder = Path::new("/lib/modules").join(release.unwrap_or_default());
        let text = |path: &Path| {
            fs::read_to_string(path).unwrap_or_else(|error| {
                log::error!("firmware: {} cannot be read error={error}", path.display());
                String::new()
            })
        };
        Self {
            files: parse_dependencies(&text(&folder.join("modules.dep"))),
            aliases: parse_aliases(&text(&folder.join("modules.alias"))),
            list: parse_list(&text(Path::new("/etc/modules"))),
            done: Mutex::default(),
            folder,
        }
    }

    /// Loads the board's list in its order.
    pub(super) fn load_list(&self) {
        let is_asked_for = |entry: &&Entry| entry.at_start || command_line::has(&entry.module);
        for entry in self.list.iter().filter(is_asked_for) {
            self.load_named(&entry.module);
        }
    }

    /// Loads one module, if the image has it.
    pub(super) fn load_named(&self, module: &str) {
        if self.files.contains_key(module) {
            self.load(module);
        } else {
            log::warn!("firmware: module {module} is not in the image");
        }
    }

    /// Loads every module that says it drives a device with that alias.
    pub(super) fn load_for(&self, modalias: &str) {
        for alias in &self.aliases {
            if matches_pattern(alias.pattern.as_bytes(), modalias.as_bytes()) {
                self.load(&alias.module);
            }
        }
    }

    fn load(&self, module: &str) {
        for file in self.files.get(module).into_iter().flatten().rev() {
            let name = module_name(file);
            if self.done.lock().unwrap_or_else(PoisonError::into_inner).contains(&name) {
                continue;
            }
            match self.insert(file, &name) {
                Ok(()) => log::debug!("firmware: module {name} loaded"),
                // Another thread, or the kernel itself, was faster.
                Err(Errno::EEXIST) => {}
                // What depends on it says so too; the rest of the machine goes on.
                Err(errno) => log::error!("firmware: module {name} cannot be loaded error={errno}"),
            }
            // After a failure too: a device that announces itself often must not fill the log.
            self.done.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
        }
    }

    fn insert(&self, file: &str, name: &str) -> nix::Result<()> {
        let entry = self.list.iter().find(|entry| entry.module == name);
        let parameters = entry.map(|entry| entry.parameters.as_str()).unwrap_or_default();
        let parameters = CString::new(parameters).map_err(|_| Errno::EINVAL)?;
        let compressed = !file.ends_with(".ko");
        let flags = if compressed { MODULE_INIT_COMPRESSED_FILE } else { 0 };
        let flags = ModuleInitFlags::from_bits_retain(flags);
        let fd = open(&self.folder.join(file), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        finit_module(fd, &parameters, flags)
    }
}

/// `kernel/drivers/x/y-z.ko.xz` is module `y_z`.
fn module_name(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split('.').next().unwrap_or(name).replace('-', "_")
}

/// modules.dep: `FILE: DEPENDENCY...`.
fn parse_dependencies(text: &str) -> HashMap<String, Vec<String>> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines
        .map(|(file, needed)| {
            let files = std::iter::once(file).chain(needed.split_whitespace());
            (module_name(file), files.map(str::to_owned).collect())
        })
        .collect()
}

/// modules.alias: `alias PATTERN MODULE`.
fn parse_aliases(text: &str) -> Vec<Alias> {
    let parse = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next()? == "alias").then_some(())?;
        let (pattern, module) = (words.next()?, words.next()?);
        Some(Alias { pattern: pattern.to_owned(), module: module.replace('-', "_") })
    };
    text.lines().filter_map(parse).collect()
}

/// /etc/modules: `[-]NAME [PARAMETER=VALUE...]`, and comments.
fn parse_list(text: &str) -> Vec<Entry> {
    let parse = |line: &str| {
        let line = line.split('#').next()?.trim();
        let (at_start, line) = line.strip_prefix('-').map_or((true, line), |rest| (false, rest));
        let mut words = line.split_whitespace();
        let module = words.next()?.replace('-', "_");
        let parameters = words.collect::<Vec<_>>().join(" ");
        Some(Entry { module, parameters, at_start })
    };
    text.lines().filter_map(parse).collect()
}

/// fnmatch(3) without escapes and slashes, as modules.alias uses it: `*`, `?`, `[a-c]`.
///
/// The text comes from a device. A `*` that was passed is never reconsidered once a later one
/// matched, so the time is at most the product of the lengths.
fn matches_pattern(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    // Where to go on when the present attempt fails: behind the last `*`, one byte further on.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        let step = match (pattern, text) {
            ([], []) => return true,
            ([b'*', rest @ ..], _) => {
                retry = Some((rest, text));
                Some((rest, text))
            }
            ([_, ..], [byte, text @ ..]) => match_one(pattern, *byte).map(|rest| (rest, text)),
            _ => None,
        };
        if let Some(next) = step {
            (pattern, text) = next;
        } else if let Some((behind, [_, further @ ..])) = retry {
            retry = Some((behind, further));
            (pattern, text) = (behind, further);
        } else {
            return false;
        }
    }
}

/// Matches the first element of `pattern` with one byte; the rest of the pattern when it fits.
fn match_one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    match pattern {
        [b'?', rest @ ..] => Some(rest),
        [b'[', rest @ ..] => {
            let end = rest.iter().position(|&byte| byte == b']')?;
            let (class, rest) = rest.split_at_checked(end)?;
            in_class(class, byte).then_some(rest.get(1..)?)
        }
        [literal, rest @ ..] => (*literal == byte).then_some(rest),
        [] => None,
    }
}

fn in_class(mut class: &[u8], byte: u8) -> bool {
    loop {
        class = match class {
            [from, b'-', to, rest @ ..] => {
                if (*from..=*to).contains(&byte) {
                    return true;
                }
                rest
            }
            [one, rest @ ..] => {
                if *one == byte {
                    return true;
                }
                rest
            }
            [] => return false,
        };
    }
}

/// linux/module.h, since Linux 5.17; nix has no name for it.
const MODULE_INIT_COMPRESSED_FILE: u32 = 4;

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a failing test")]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_kept_in_the_order_of_depmod() {
        let text = "kernel/a/vivid.ko: kernel/b/v4l2-dv-timings.ko.xz kernel/b/videodev.ko\nkernel/b/mc.ko:\n";
        let files = parse_dependencies(text);
        assert_eq!(files["vivid"].len(), 3);
        assert_eq!(files["vivid"].last().unwrap(), "kernel/b/videodev.ko");
        assert_eq!(files["mc"], ["kernel/b/mc.ko"]);
        assert_eq!(module_name(&files["vivid"][1]), "v4l2_dv_timings");
    }

    #[test]
    fn the_list_has_options_comments_and_modules_that_wait_for_a_device() {
        let text = "# cameras\nvivid n_devs=1  node_types=0x1 # one\n\n-virtio-net\n  - uvcvideo quirks=2\n";
        let entry = |module: &str, parameters: &str, at_start| Entry {
            module: module.to_owned(),
            parameters: parameters.to_owned(),
            at_start,
        };
        assert_eq!(
            parse_list(text),
            [
                entry("vivid", "n_devs=1 node_types=0x1", true),
                entry("virtio_net", "", false),
                entry("uvcvideo", "quirks=2", false),
            ]
        );
    }

    #[test]
    fn aliases_are_read_and_other_lines_passed_over() {
        let text = "# Aliases\nalias virtio:d00000001v* virtio-net\nalias broken\noptions x y z\n";
        let alias = Alias { pattern: "virtio:d00000001v*".into(), module: "virtio_net".into() };
        assert_eq!(parse_aliases(text), [alias]);
    }

    #[test]
    fn patterns_match_like_fnmatch() {
        let cases = [
            ("virtio:d00000001v*", "virtio:d00000001v00001AF4", true),
            ("virtio:d00000001v*", "virtio:d00000002v00001AF4", false),
            (
                "usb:v*p*d*dc*dsc*dp*ic0Eisc01ip00in*",
                "usb:v046Dp0825d0012dcEFdsc02dp01ic0Eisc01ip00in00",
                true,
            ),
            (
                "usb:v*p*d*dc*dsc*dp*ic0Eisc01ip00in*",
                "usb:v046Dp0825d0012dcEFdsc02dp01ic0Eisc02ip00in00",
                false,
            ),
            ("usb:d00[0-9A-C]?x", "usb:d00B7x", true),
            ("usb:d00[0-9A-C]?x", "usb:d00D7x", false),
            ("a[bc]", "ac", true),
            ("a[bc", "ac", false),
            ("", "", true),
            ("", "x", false),
            ("*", "", true),
            ("a*b*c", "a1b2b3c", true),
            ("a*b*c", "a1b2b3", false),
        ];
        for (pattern, text, wanted) in cases {
            let found = matches_pattern(pattern.as_bytes(), text.as_bytes());
            assert_eq!(found, wanted, "{pattern} {text}");
        }
    }

    #[test]
    fn a_pattern_of_many_stars_takes_no_exponential_time() {
        let pattern = "*a".repeat(50) + "b";
        assert!(!matches_pattern(pattern.as_bytes(), "a".repeat(5_000).as_bytes()));
    }
}
