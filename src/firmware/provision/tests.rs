use super::*;
use crate::firmware::folder::tests::Scratch;

const GATE: &str = r#"{ "name": "gate",
    "users": [{ "name": "admin", "role": "admin", "password": "correct horse" }] }"#;

const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/rootfs-overlay/etc/ocellus.json");

/// A boot and a data partition.
struct Card {
    boot: Scratch,
    data: Scratch,
}

impl Card {
    fn new() -> Self {
        Self { boot: Scratch::new(), data: Scratch::new() }
    }

    /// A card that keeps a configuration of that name.
    fn keeping(name: &str) -> Self {
        let card = Self::new();
        card.put(GIVEN, GATE.replace("gate", name).as_bytes());
        assert_eq!(card.start().name, name);
        card
    }

    fn start(&self) -> Config {
        configuration(Some(&self.boot.0), &self.data.0, Path::new(REFERENCE))
    }

    /// A start without anything on the boot partition.
    fn kept(&self) -> Config {
        configuration(None, &self.data.0, Path::new(REFERENCE))
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        fs::write(self.boot.0.join(name), bytes).unwrap();
    }

    fn text(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.boot.0.join(name)).ok()
    }

    /// Whether any file of the card holds the password.
    fn tells_password(&self, folder: &Path) -> bool {
        fs::read_dir(folder).unwrap().any(|file| {
            let bytes = fs::read(file.unwrap().path()).unwrap();
            bytes.windows(13).any(|window| window == b"correct horse")
        })
    }
}

#[test]
fn a_given_configuration_is_kept_and_disappears_from_the_boot_partition() {
    let card = Card::new();
    card.put(GIVEN, GATE.as_bytes());
    let config = card.start();
    assert_eq!((config.name.as_str(), config.users.len()), ("gate", 1));
    assert_eq!(config.rtsp.listen, ["[::]:554".parse().unwrap()]);
    assert_eq!(card.text(GIVEN), None);
    assert_eq!(card.text(ERRORS), None);
    assert!(!card.tells_password(&card.boot.0) && card.tells_password(&card.data.0));
    assert_eq!(card.kept(), config);
    assert_eq!(card.start(), config, "a later start finds nothing new");
}

#[test]
fn without_any_configuration_nobody_gets_in() {
    let card = Card::new();
    assert_eq!(card.start(), settings::default_config());
    assert!(fs::read_dir(&card.data.0).unwrap().next().is_none(), "and nothing is written");
}

#[test]
fn a_configuration_in_the_image_counts_until_there_is_another() {
    let card = Card::new();
    let image = card.boot.0.join("image.json");
    fs::write(&image, GATE.replace("gate", "builder")).unwrap();
    assert_eq!(configuration(None, &card.data.0, &image).name, "builder");
    fs::write(&image, "{").unwrap();
    assert_eq!(configuration(None, &card.data.0, &image), settings::default_config());
    let card = Card::keeping("kept");
    assert_eq!(configuration(None, &card.data.0, &image).name, "kept");
}

#[test]
fn a_wrong_file_is_answered_in_words_and_left_to_be_corrected() {
    let cases: [(&[u8], &str); 7] = [
        (br#"{ "nmae": "gate" }"#, "nmae: unknown key; the nearest known key is name"),
        (b"{ \"name\": \"gate\",\n  \"auth\" }", "not JSON: expected `:` at line 2 column 10"),
        (b"[]", "the document"),
        (b" ", "not JSON"),
        (b"\xff\xfe{\0}\0", "no text in UTF-8"),
        (br#"{ "auth": false }"#, "loopback"),
        (br#"{ "users": [{ "name": "a", "role": "boss", "password": "hush" }] }"#, "\"boss\""),
    ];
    for (bytes, said) in cases {
        let card = Card::keeping("old");
        card.put(GIVEN, bytes);
        assert_eq!(card.start().name, "old", "{said}");
        let errors = card.text(ERRORS).unwrap();
        assert!(errors.contains(said), "{errors}");
        assert!(!errors.contains("hush"), "{errors}");
        assert_eq!(fs::read(card.boot.0.join(GIVEN)).unwrap(), bytes, "the file is the person's");

        let long_ago = std::time::SystemTime::UNIX_EPOCH;
        let file = OpenOptions::new().write(true).open(card.boot.0.join(ERRORS)).unwrap();
        file.set_modified(long_ago).unwrap();
        card.start();
        let written = fs::metadata(card.boot.0.join(ERRORS)).unwrap().modified().unwrap();
        assert_eq!(written, long_ago, "the same words are not written again");

        card.put(GIVEN, GATE.as_bytes());
        assert_eq!(card.start().name, "gate");
        assert_eq!(card.text(ERRORS), None, "nothing is wrong any more");
    }
}

#[test]
fn a_byte_order_mark_is_no_error() {
    let card = Card::new();
    card.put(GIVEN, format!("\u{feff}{GATE}").as_bytes());
    assert_eq!(card.start().name, "gate");
}

#[test]
fn a_folder_of_that_name_is_answered_too() {
    let card = Card::keeping("old");
    fs::create_dir(card.boot.0.join(GIVEN)).unwrap();
    assert_eq!(card.start().name, "old");
    assert!(card.text(ERRORS).unwrap().contains("cannot be read"));
}

/// What the boot partition may hold when the power goes during the erasure: any sector old or
/// zeros, then nothing, then no file.
#[test]
fn an_erasure_that_a_power_cut_ended_goes_on() {
    let long = GATE.replace("{ \"name\"", &format!("{{{}\"name\"", " ".repeat(900)));
    let sectors = long.len().div_ceil(512);
    assert!(sectors >= 3, "{sectors}");
    for erased in 1_u32..1 << sectors {
        let mut bytes = long.clone().into_bytes();
        bytes.resize(4096, b' ');
        for (sector, chunk) in bytes.chunks_mut(512).take(sectors).enumerate() {
            if erased & (1 << sector) != 0 {
                chunk.fill(0);
            }
        }
        let card = Card::keeping("gate");
        card.put(GIVEN, &bytes);
        assert_eq!(card.start().name, "gate", "{erased:b}");
        assert_eq!((card.text(GIVEN), card.text(ERRORS)), (None, None), "{erased:b}");
    }
    let card = Card::keeping("gate");
    card.put(GIVEN, b"");
    assert_eq!(card.start().name, "gate");
    assert_eq!((card.text(GIVEN), card.text(ERRORS)), (None, None));
}

#[test]
fn a_file_that_never_was_written_completely_is_not_taken_for_a_kept_one() {
    let card = Card::new();
    card.put(GIVEN, &[0; 4096]);
    assert_eq!(card.start(), settings::default_config());
    assert!(card.text(ERRORS).unwrap().contains("was not written completely"));
}

#[test]
fn without_a_data_partition_the_given_configuration_is_used_and_not_erased() {
    let card = Card::new();
    card.put(GIVEN, GATE.as_bytes());
    let nowhere = card.data.0.join("missing");
    assert_eq!(configuration(Some(&card.boot.0), &nowhere, Path::new(REFERENCE)).name, "gate");
    assert_eq!(card.text(GIVEN).as_deref(), Some(GATE));
    assert!(card.text(ERRORS).unwrap().contains("cannot store it"));
}

#[test]
fn a_reset_erases_what_is_kept_and_its_own_file_last() {
    let card = Card::keeping("gate");
    let first = device_uuid(&card.data.0).unwrap();
    card.put(RESET, b"");
    card.put(ERRORS, b"old");
    assert_eq!(card.start(), settings::default_config());
    assert_eq!((card.text(RESET), card.text(ERRORS)), (None, None));
    assert!(fs::read_dir(&card.data.0).unwrap().next().is_none());
    assert_ne!(device_uuid(&card.data.0).unwrap(), first, "it is a new device");
}

#[test]
fn a_reset_that_cannot_erase_everything_is_tried_again() {
    let card = Card::keeping("gate");
    let stubborn = card.data.0.join(DEVICE);
    fs::create_dir(&stubborn).unwrap();
    card.put(RESET, b"");
    assert_eq!(card.start(), settings::default_config());
    assert!(card.text(RESET).is_some(), "the wish stays");
    fs::remove_dir(stubborn).unwrap();
    card.start();
    assert_eq!(card.text(RESET), None);
}

#[test]
fn a_reset_with_a_configuration_beside_it_starts_anew_with_that() {
    let card = Card::keeping("old");
    card.put(RESET, b"");
    card.put(GIVEN, GATE.as_bytes());
    assert_eq!(card.start().name, "gate");
    assert_eq!((card.text(RESET), card.text(GIVEN)), (None, None));
    assert_eq!(card.kept().name, "gate");
}

/// What the camera is told of its certificate.
fn given_identity(card: &Card) -> (Config, String) {
    let mut config = settings::parse_config(GATE).unwrap();
    let run = Scratch::new();
    let path = run.0.join("identity.pem");
    give_identity(&mut config, &card.data.0, &path);
    (config, fs::read_to_string(path).unwrap_or_default())
}

#[test]
fn the_camera_is_told_where_its_certificate_is_which_only_a_reset_changes() {
    let card = Card::keeping("gate");
    let (config, first) = given_identity(&card);
    assert!(config.rtsp.tls.certificate.is_some() && config.rtsp.tls.listen.len() == 1);
    assert_eq!(config.rtsp.tls.certificate, config.rtsp.tls.key);
    assert_eq!(given_identity(&card).1, first);
    card.put(RESET, b"");
    card.start();
    assert_ne!(given_identity(&card).1, first);

    let mut off = Config::default();
    let nowhere = card.data.0.join("missing/identity.pem");
    give_identity(&mut off, &card.data.0, &nowhere);
    assert_eq!(off, Config::default());
    off.rtsp.tls.listen.push("[::]:322".parse().unwrap());
    give_identity(&mut off, &card.data.0, &nowhere);
    assert_eq!(off, Config::default(), "without a place for it nothing is encrypted");
}

#[test]
fn a_wrong_certificate_is_answered_and_a_right_one_takes_the_answer_away() {
    let card = Card::keeping("gate");
    card.put(settings::IDENTITY_GIVEN, b"no PEM");
    assert_eq!(card.start().name, "gate");
    assert!(card.text(ERRORS).unwrap().contains("identity.pem:\n\n    no certificate in PEM"));
    card.put(settings::IDENTITY_GIVEN, crate::config::Identity::make("x").unwrap().as_bytes());
    card.start();
    assert_eq!((card.text(ERRORS), card.text(settings::IDENTITY_GIVEN)), (None, None));
}

/// A power cut after each file that a reset erases: the next start finds the wish and the rest.
#[test]
fn a_power_cut_during_a_reset_repeats_it() {
    let files: Vec<&str> =
        STORE_FILES.into_iter().chain([DEVICE, DEVICE_NEW]).chain(identity::FILES).collect();
    for count in 0..=files.len() {
        let card = Card::keeping("gate");
        device_uuid(&card.data.0).unwrap();
        given_identity(&card);
        card.put(RESET, b"");
        for name in files.iter().take(count) {
            folder::erase(&card.data.0.join(name)).unwrap();
        }
        assert_eq!(card.start(), settings::default_config(), "{count}");
        assert!(fs::read_dir(&card.data.0).unwrap().next().is_none(), "{count}");
        assert_eq!(card.text(RESET), None);
    }
}

#[test]
fn a_damaged_store_is_put_right_at_the_start() {
    let card = Card::keeping("gate");
    fs::write(card.data.0.join("ocellus.json"), b"{").unwrap();
    assert_eq!(card.kept().name, "gate");
    let found = Store::new(Folder::new(&card.data.0)).load();
    assert_eq!((found.origin, found.faults.len()), (Origin::Current, 0));
}

#[test]
fn the_camera_reads_exactly_what_was_decided_and_nobody_else_does() {
    let scratch = Scratch::new();
    let path = scratch.0.join("ocellus.json");
    fs::write(&path, "left by somebody").unwrap();
    let config = settings::parse_config(GATE).unwrap();
    hand_over(&config, &path).unwrap();
    assert_eq!(Config::from_json(&fs::read_to_string(&path).unwrap()).unwrap(), config);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn the_devices_number_is_made_once_and_survives_damage_by_a_new_one() {
    let scratch = Scratch::new();
    let first = device_uuid(&scratch.0).unwrap();
    assert!(is_uuid(&first), "{first}");
    assert_eq!(device_uuid(&scratch.0).unwrap(), first);
    for damaged in ["", "{", r#"{ "uuid": "x" }"#] {
        fs::write(scratch.0.join(DEVICE), damaged).unwrap();
        let new = device_uuid(&scratch.0).unwrap();
        assert!(is_uuid(&new) && new != first);
    }
}

#[test]
fn version_and_variant_are_those_of_random_numbers() {
    assert_eq!(uuid(0), "00000000-0000-4000-8000-000000000000");
    assert_eq!(uuid(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    assert!(!is_uuid("00000000-0000-1000-8000-000000000000"));
    assert!(!is_uuid("00000000000040008000000000000000"));
}
