//! The first process of a guest: mounts, modules, the checks, power off.
//!
//! Firmware does the like for the product (`ocellus::firmware`); this is kept apart so that a
//! fault there cannot hide one in `capture`, and because only a test wants vivid loaded five ways
//! and the codec that Debian's kernel leaves out.

use std::collections::HashMap;
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::kmod::{DeleteModuleFlags, ModuleInitFlags, delete_module, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::stat::Mode;

use super::m2m;

/// The ways in which vivid is loaded: what they are called here, and the module's parameters.
///
/// `input_types`: 0 is a webcam (a list of sizes and rates), 3 is HDMI (a range of sizes, no
/// rates). `multiplanar`: 1 is the single-planar interface, 2 the multi-planar one.
/// `allocators`: 0 is vmalloc, 1 is contiguous memory.
const SETUPS: [(&str, &str); 4] = [
    ("single", "n_devs=1 node_types=0x1 multiplanar=1 num_inputs=1 input_types=0"),
    ("multi", "n_devs=1 node_types=0x1 multiplanar=2 num_inputs=1 input_types=0"),
    ("contiguous", "n_devs=1 node_types=0x1 multiplanar=2 num_inputs=1 input_types=0 allocators=1"),
    ("hdmi", "n_devs=1 node_types=0x1 multiplanar=1 num_inputs=1 input_types=3"),
];

/// Runs every check on every setup and powers the machine off.
pub(super) fn run() -> ExitCode {
    let (mut passed, mut failed) = (0, 0);
    for (source, target) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys")] {
        let mounted = mount(Some(source), target, Some(source), MsFlags::empty(), None::<&str>);
        assert!(matches!(mounted, Ok(()) | Err(Errno::EBUSY)), "{target}: {mounted:?}");
    }
    let filter = std::env::var("checks").unwrap_or_default();
    let modules = Modules::read();
    for (setup, parameters) in SETUPS {
        modules.load("vivid", parameters);
        let (ok, bad) = super::run_checks(setup, PathBuf::from("/dev/video0"), &filter);
        (passed, failed) = (passed + ok, failed + bad);
        let name = CString::from(c"vivid");
        delete_module(&name, DeleteModuleFlags::O_NONBLOCK).expect("nobody holds vivid");
    }
    modules.load("vivid", SETUPS[0].1);
    for (setup, parameters, pictures) in m2m::SETUPS {
        // vivid has brought the modules that both need; these two are not the image's.
        insert(Path::new("/m2m/v4l2-mem2mem.ko"), "");
        insert(Path::new("/m2m/vicodec.ko"), parameters);
        let encoder = m2m::Encoder::find(pictures);
        let (ok, bad) = super::run_all(setup, &encoder, m2m::CHECKS, &filter);
        (passed, failed) = (passed + ok, failed + bad);
        delete_module(c"vicodec", DeleteModuleFlags::O_NONBLOCK).expect("nobody holds vicodec");
    }
    println!("device: result: {passed} passed, {failed} failed");
    // Only an error comes back from this.
    let refused = reboot(RebootMode::RB_POWER_OFF).expect_err("the machine is off");
    panic!("power off: {refused}");
}

/// modules.dep: what each module needs, by name.
pub(super) struct Modules {
    root: PathBuf,
    needs: HashMap<String, Vec<PathBuf>>,
}

impl Modules {
    pub(super) fn read() -> Self {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let root = Path::new("/lib/modules").join(release.trim());
        let table = std::fs::read_to_string(root.join("modules.dep")).unwrap();
        let lines = table.lines().filter_map(|line| line.split_once(':'));
        let needs = lines
            .map(|(file, needs)| {
                // The last one named is needed by those before it.
                let order = needs.split_whitespace().rev().chain([file]);
                (stem(file).to_owned(), order.map(PathBuf::from).collect())
            })
            .collect();
        Self { root, needs }
    }

    pub(super) fn load(&self, name: &str, parameters: &str) {
        let order = self.needs.get(name).unwrap_or_else(|| panic!("no module {name}"));
        for (index, file) in order.iter().enumerate() {
            let is_last = index + 1 == order.len();
            insert(&self.root.join(file), if is_last { parameters } else { "" });
        }
    }
}

pub(super) fn insert(file: &Path, parameters: &str) {
    let fd = open(file, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
        .unwrap_or_else(|errno| panic!("{}: {errno}", file.display()));
    let parameters = CString::new(parameters).unwrap();
    match finit_module(&fd, &parameters, ModuleInitFlags::empty()) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => panic!("{}: {errno}", file.display()),
    }
}

fn stem(file: &str) -> &str {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split('.').next().unwrap_or(name)
}
