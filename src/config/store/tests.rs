use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::*;

/// A disk that records, so that every power cut can be tried, and that can fail.
#[derive(Clone, Debug, Default)]
struct TestDisk {
    /// What a reader of the running system sees.
    seen: Platter,
    /// What is certain to survive.
    safe: Platter,
    /// What may survive: each of these by itself, in this order.
    pending: Vec<Change>,
    /// Every state that a power cut before, between or after the operations could leave.
    crashes: Rc<RefCell<BTreeSet<Platter>>>,
    /// Operations that still succeed.
    credit: Option<usize>,
    lies: Lies,
    /// The number of the newest file.
    newest: usize,
}

/// A defect of the disk, or of the code above it that forgets an operation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Lies {
    #[default]
    None,
    Sync,
    SyncDir,
}

/// Names and contents; a name leads to a number, like an inode's, that never is used again.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Platter {
    names: BTreeMap<String, usize>,
    contents: BTreeMap<usize, Vec<u8>>,
}

#[derive(Clone, Debug)]
enum Change {
    Link { name: String, file: usize },
    Rename { from: String, to: String, file: usize },
    Bytes { file: usize, bytes: Vec<u8> },
}

impl Platter {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Link { name, file } => {
                self.names.insert(name.clone(), *file);
            }
            Change::Rename { from, to, file } => {
                self.names.remove(from);
                self.names.insert(to.clone(), *file);
            }
            Change::Bytes { file, bytes } => {
                self.contents.insert(*file, bytes.clone());
            }
        }
    }

    fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let file = self.names.get(name)?;
        Some(self.contents.get(file).cloned().unwrap_or_default())
    }
}

impl Change {
    /// What may be left of it: nothing, all, and for bytes much in between.
    fn remains(&self) -> Vec<Option<Self>> {
        let mut remains = vec![None, Some(self.clone())];
        if let Self::Bytes { file, bytes } = self {
            let half = bytes.len() / 2;
            let zeros = vec![0; bytes.len()];
            let ends = [&bytes[..half], &zeros[half..]].concat();
            let begins = [&zeros[..half], &bytes[half..]].concat();
            let longer = [&bytes[..], &zeros[..]].concat();
            let cut = bytes[..bytes.len().saturating_sub(1)].to_vec();
            let torn = [Vec::new(), bytes[..half].to_vec(), cut, zeros, ends, begins, longer];
            remains.extend(torn.map(|bytes| Some(Self::Bytes { file: *file, bytes })));
        }
        remains
    }
}

impl TestDisk {
    /// The machine after a power cut that left this.
    fn after(left: &Platter) -> Self {
        let numbers = left.names.values().chain(left.contents.keys());
        let newest = numbers.copied().max().unwrap_or_default();
        Self { seen: left.clone(), safe: left.clone(), newest, ..Self::default() }
    }

    /// Adds every state that the power cut of this moment could leave.
    fn enumerate(&self) {
        let mut states = vec![self.safe.clone()];
        for change in &self.pending {
            let remains = change.remains();
            states = states
                .iter()
                .flat_map(|state| {
                    remains.iter().map(|left| {
                        let mut state = state.clone();
                        if let Some(left) = left {
                            state.apply(left);
                        }
                        state
                    })
                })
                .collect();
        }
        self.crashes.borrow_mut().extend(states);
    }

    fn change(&mut self, change: Change) {
        self.seen.apply(&change);
        self.pending.push(change);
    }

    /// Makes those pending changes safe that `is_meant` names.
    fn settle(&mut self, is_meant: impl Fn(&Change) -> bool) {
        let (meant, rest) = self.pending.drain(..).partition(is_meant);
        self.pending = rest;
        let meant: Vec<Change> = meant;
        meant.iter().for_each(|change| self.safe.apply(change));
    }

    fn spend(&mut self) -> io::Result<()> {
        self.enumerate();
        match &mut self.credit {
            Some(0) => Err(io::Error::other("no more")),
            Some(credit) => {
                *credit -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Disk for TestDisk {
    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let spent = self.spend();
        let file = self.seen.names.get(name).copied().unwrap_or_else(|| {
            self.newest += 1;
            self.newest
        });
        if !self.seen.names.contains_key(name) {
            self.change(Change::Link { name: name.into(), file });
        }
        // A disk that is full has taken the beginning.
        let len = if spent.is_ok() { bytes.len() } else { bytes.len() / 3 };
        self.change(Change::Bytes { file, bytes: bytes[..len].to_vec() });
        self.enumerate();
        spent
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.spend()?;
        let wanted = self.seen.names[name];
        if self.lies != Lies::Sync {
            self.settle(|change| matches!(change, Change::Bytes { file, .. } if *file == wanted));
        }
        self.enumerate();
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.spend()?;
        let file = self.seen.names[from];
        self.change(Change::Rename { from: from.into(), to: to.into(), file });
        self.enumerate();
        Ok(())
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        self.spend()?;
        if self.lies != Lies::SyncDir {
            self.settle(|change| !matches!(change, Change::Bytes { .. }));
        }
        self.enumerate();
        Ok(())
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        if self.credit == Some(usize::MAX) {
            return Err(io::Error::other("no reading"));
        }
        Ok(self.seen.bytes(name))
    }
}

/// Configurations of different lengths, so that the longer shows behind the shorter.
fn config(name: &str) -> Config {
    Config { name: name.into(), ..Config::default() }
}

fn saved(config: &Config) -> TestDisk {
    let mut store = Store::new(TestDisk::default());
    store.save(config).unwrap();
    let disk = store.disk;
    assert!(disk.pending.is_empty(), "a save that has returned is safe: {:?}", disk.pending);
    TestDisk::after(&disk.safe)
}

/// Every state a power cut during this save could leave.
fn crashes_of_saving(new: &Config, disk: TestDisk) -> Vec<Platter> {
    let mut store = Store::new(disk);
    store.save(new).unwrap();
    let crashes = store.disk.crashes.take();
    crashes.into_iter().collect()
}

fn loaded(disk: &Platter) -> Loaded {
    Store::new(TestDisk::after(disk)).load()
}

#[test]
fn a_power_cut_at_any_moment_leaves_the_old_or_the_new_configuration() {
    let pairs = [("old", "a much longer name, the new one"), ("a much longer name", "b")];
    for (old, new) in pairs.map(|(old, new)| (config(old), config(new))) {
        let crashes = crashes_of_saving(&new, saved(&old));
        assert!(crashes.len() > 30, "the disk tries more than {} states", crashes.len());
        let (mut olds, mut news) = (0, 0);
        for crash in &crashes {
            let loaded = loaded(crash);
            assert_eq!(loaded.origin, Origin::Current, "{:?}", crash.names);
            match loaded.config {
                config if config == old => olds += 1,
                config if config == new => news += 1,
                neither => panic!("{neither:?} from {:?}", crash.names),
            }
        }
        assert!(olds > 0 && news > 0, "{olds} old, {news} new");
    }
}

#[test]
fn a_power_cut_during_the_first_save_leaves_nothing_or_the_new_configuration() {
    let new = config("new");
    for crash in crashes_of_saving(&new, TestDisk::default()) {
        let loaded = loaded(&crash);
        match loaded.origin {
            Origin::None => assert!(loaded.config.users.is_empty() && loaded.config.auth),
            Origin::Current => assert_eq!(loaded.config, new),
            Origin::LastGood => panic!("the copy came first in {:?}", crash.names),
        }
    }
}

#[test]
fn a_second_power_cut_during_the_repair_of_the_first_loses_nothing() {
    let (old, new) = (config("old"), config("the new one"));
    let mut tried = 0;
    for first in crashes_of_saving(&new, saved(&old)) {
        let found = loaded(&first);
        for second in crashes_of_saving(&found.config, TestDisk::after(&first)) {
            tried += 1;
            assert_eq!(
                loaded(&second).config,
                found.config,
                "{:?}, {:?}",
                first.names,
                second.names
            );
        }
    }
    assert!(tried > 1_000, "{tried} pairs of power cuts");
}

#[test]
fn a_power_cut_during_the_repair_of_a_damaged_file_loses_nothing() {
    let kept = config("kept");
    for damaged in [CURRENT, LAST_GOOD] {
        let mut disk = saved(&kept).seen;
        let file = disk.names[damaged];
        disk.contents.insert(file, b"ocellus-config 1 sha".to_vec());
        let found = loaded(&disk);
        assert_eq!(found.config, kept);
        assert_eq!(found.faults.len(), 1);
        for crash in crashes_of_saving(&found.config, TestDisk::after(&disk)) {
            assert_eq!(loaded(&crash).config, kept, "{:?}", crash.names);
        }
    }
}

#[test]
fn the_test_disk_catches_a_save_that_does_not_wait() {
    for lies in [Lies::Sync, Lies::SyncDir] {
        let (old, new) = (config("old"), config("new"));
        let crashes = crashes_of_saving(&new, TestDisk { lies, ..saved(&old) });
        let is_lost = |crash: &&Platter| {
            let loaded = loaded(crash);
            loaded.origin == Origin::None || loaded.config != old && loaded.config != new
        };
        let is_repaired = |crash: &&Platter| loaded(crash).origin == Origin::LastGood;
        let hurt = crashes.iter().filter(is_lost).count();
        let repaired = crashes.iter().filter(is_repaired).count();
        // Renames alone are harmless in any order; what they lead to is not.
        match lies {
            Lies::Sync => assert!(hurt > 0 && repaired > 0, "{hurt} {repaired}"),
            Lies::SyncDir | Lies::None => {}
        }
        let mut store = Store::new(TestDisk { lies, ..saved(&old) });
        store.save(&new).unwrap();
        assert!(!store.disk.pending.is_empty(), "what has returned must be safe");
    }
}

#[test]
fn a_disk_that_fails_at_any_operation_leaves_the_old_or_the_new_configuration() {
    let (old, new) = (config("old"), config("the new one"));
    let mut failures = 0;
    for credit in 0.. {
        let mut store = Store::new(TestDisk { credit: Some(credit), ..saved(&old) });
        let done = store.save(&new);
        let found = store.load();
        assert!(found.config == old || found.config == new, "{credit}: {found:?}");
        for crash in store.disk.crashes.take() {
            let found = loaded(&crash).config;
            assert!(found == old || found == new, "{credit}: {found:?}");
        }
        if done.is_ok() {
            assert_eq!(store.load().config, new);
            break;
        }
        failures += 1;
        let mut again = Store::new(TestDisk { credit: None, ..store.disk });
        again.save(&new).unwrap();
        assert_eq!(again.load().config, new, "a later save succeeds");
        assert!(again.load().faults.is_empty());
    }
    assert_eq!(failures, 8, "two files of four operations each");
}

/// A disk with these two files.
fn disk_of(current: Option<&[u8]>, last_good: Option<&[u8]>) -> Platter {
    let mut disk = Platter::default();
    for (file, (name, bytes)) in [(CURRENT, current), (LAST_GOOD, last_good)].iter().enumerate() {
        if let Some(bytes) = bytes {
            disk.names.insert((*name).into(), file);
            disk.contents.insert(file, bytes.to_vec());
        }
    }
    disk
}

/// HOSTILE's row of damaged files, and what is said about each.
fn damaged_files() -> Vec<(Vec<u8>, &'static str)> {
    let whole = emit(&config("kept").to_json()).into_bytes();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let mut half_zero = whole.clone();
    let len = half_zero.len();
    half_zero[len / 2..].fill(0);
    let stored = |json: &str| emit(json).into_bytes();
    let unknown = r#"{ "nmae": "gate" }"#;
    let large = format!(r#"{{ "name": "{}" }}"#, "x".repeat(1 << 20));
    vec![
        (Vec::new(), "it is empty"),
        (vec![0; 4096], "it is empty"),
        (whole[..len / 2].to_vec(), "its checksum is wrong"),
        (whole[..30].to_vec(), "it ends in its first line"),
        (whole[..9].to_vec(), "not JSON"),
        (flipped, "its checksum is wrong"),
        (half_zero, "its checksum is wrong"),
        (vec![0xff; 700], "it is no text"),
        (b"ocellus-config 1\n{}".to_vec(), "its first line has no checksum"),
        (b"ocellus-config 2 sha256=00\n{}".to_vec(), "a later version"),
        (unknown.into(), "nmae: unknown key; the nearest known key is name"),
        (stored(unknown), "nmae: unknown key; the nearest known key is name"),
        (stored(r#"{ "name": 5 }"#), "name: 5 is not allowed"),
        (large.clone().into_bytes(), "too long"),
        (stored(&large), "too long"),
        (br#"{ "name": "ga"#.to_vec(), "not JSON"),
    ]
}

#[test]
fn a_damaged_file_is_said_and_the_last_good_copy_used() {
    let kept = config("kept");
    let whole = emit(&kept.to_json()).into_bytes();
    for (bytes, said) in damaged_files() {
        let found = loaded(&disk_of(Some(&bytes), Some(&whole)));
        assert_eq!((found.config, found.origin), (kept.clone(), Origin::LastGood), "{said}");
        let [fault] = &found.faults[..] else { panic!("{:?}", found.faults) };
        let text = fault.to_string();
        assert!(text.starts_with("ocellus.json: ") && text.contains(said), "{text} for {said}");

        let found = loaded(&disk_of(Some(&whole), Some(&bytes)));
        assert_eq!((found.config, found.origin), (kept.clone(), Origin::Current));
        assert_eq!(found.faults.len(), 1, "the copy's damage is known before it is needed");
    }
}

#[test]
fn with_both_files_damaged_the_camera_starts_and_lets_nobody_in() {
    for (bytes, _) in damaged_files() {
        for last_good in [None, Some(&bytes[..])] {
            let found = loaded(&disk_of(Some(&bytes), last_good));
            assert_eq!((found.config, found.origin), (Config::default(), Origin::None));
            assert_eq!(found.faults.len(), 2, "{:?}", found.faults);
        }
    }
    let found = loaded(&disk_of(None, None));
    assert_eq!(found.origin, Origin::None);
    assert!(found.faults.is_empty(), "a new device has no fault");
}

#[test]
fn every_length_that_a_torn_file_can_have_is_noticed() {
    let kept = config("kept");
    let whole = emit(&kept.to_json()).into_bytes();
    for len in 0..whole.len() {
        let found = loaded(&disk_of(Some(&whole[..len]), Some(&whole)));
        assert_eq!((found.config, found.origin), (kept.clone(), Origin::LastGood), "{len}");
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let kept = config("kept");
    let whole = emit(&kept.to_json()).into_bytes();
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let found = loaded(&disk_of(Some(&bytes), Some(&whole)));
        assert_eq!((found.config, found.origin), (kept.clone(), Origin::LastGood), "bit {bit}");
    }
}

#[test]
fn a_plain_file_that_a_person_put_there_is_taken_and_its_copy_made() {
    let found = loaded(&disk_of(Some(br#"{ "name": "by hand" }"#), None));
    assert_eq!((found.config.name.as_str(), found.origin), ("by hand", Origin::Current));
    assert!(matches!(found.faults[..], [Fault { file: LAST_GOOD, what: What::Missing }]));
}

#[test]
fn a_disk_that_cannot_be_read_is_said_and_the_camera_starts() {
    let disk = TestDisk { credit: Some(usize::MAX), ..saved(&config("kept")) };
    let found = Store::new(disk).load();
    assert_eq!(found.origin, Origin::None);
    assert!(found.faults.iter().all(|fault| fault.to_string().contains("cannot be read")));
}

#[test]
fn only_the_named_files_are_ever_used() {
    let mut store = Store::new(TestDisk::default());
    store.save(&config("old")).unwrap();
    store.save(&config("new")).unwrap();
    for crash in store.disk.crashes.take() {
        assert!(
            crash.names.keys().all(|name| STORE_FILES.contains(&name.as_str())),
            "{:?}",
            crash.names
        );
    }
}
