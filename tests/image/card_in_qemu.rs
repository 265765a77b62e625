//! The Raspberry Pi's card under emulation: its size, its first start, its partitions, its silence.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::card::{Card, image};
use crate::guest::{Guest, value};
use crate::in_qemu::is_ready;
use crate::player;

pub(crate) fn ready() -> bool {
    is_ready(&image(), &["qemu-system-aarch64", "mcopy", "ffmpeg"])
}

/// The number of write operations that QEMU has seen.
fn writes(guest: &mut Guest) -> u64 {
    guest.monitor("info blockstats");
    // Empty drives of the machine have lines too.
    let line = guest.line("card: rd_bytes=");
    value(&line, "wr_operations").parse().unwrap()
}

#[test]
fn the_image_keeps_its_budgets_and_names_its_parts() {
    if !ready() {
        return;
    }
    let len = |path: &Path| fs::metadata(path).unwrap().len();
    let (raw, packed) = (len(&image()), len(&image().with_extension("img.xz")));
    println!("image {raw} bytes, {packed} as .xz");
    assert!(raw <= 64_000_000 && packed <= 32_000_000);
    let parts = fs::read_to_string(image().with_extension("cdx.json")).unwrap();
    let parts: serde_json::Value = serde_json::from_str(&parts).unwrap();
    let components = parts["components"].as_array().unwrap();
    for name in ["raspi-firmware", "e2fsprogs", "libc6", "openh264"] {
        let found = components.iter().find(|component| component["name"] == name);
        let version = found.unwrap_or_else(|| panic!("no {name}"))["version"].as_str().unwrap();
        assert!(version.starts_with(|first: char| first.is_ascii_digit()), "{name} {version}");
    }
}

#[test]
fn a_raspberry_pi_3b_streams_from_its_card() {
    if !ready() {
        return;
    }
    let card = Card::new("raspi3b", 128 << 20);
    // /dev/console is the screen, as on a board; the serial line is to show as much.
    let mut guest = Guest::boot(&card.options("raspi3b"));
    for line in ["card found", "target=/boot", "target=/data", "storage: done", "first access unit"]
    {
        println!("{}", guest.first_line(line));
    }
    assert_eq!(value(&guest.first_line("lease acquired"), "address"), "10.0.2.15/24");
    let played = player::play(guest.url(), "tcp", 25, Duration::from_secs(90));
    println!("raspi3b: {} frames, {:.1} per second", played.frames, played.fps);
    assert!(played.frames >= 25, "{played:?}");
    drop(guest);
    assert_eq!(card.data(), (0x83, 122_880, 139_264));
}

#[test]
fn nothing_is_written_while_pictures_flow() {
    if !ready() {
        return;
    }
    let card = Card::new("silence", 128 << 20);
    let mut guest = Guest::boot(&card.options("card-virt"));
    // The journal's last words after mounting come within its interval of 5 s.
    let _ = player::play(guest.url(), "tcp", 100, Duration::from_secs(90));
    let before = writes(&mut guest);
    let played = player::play(guest.url(), "tcp", 600, Duration::from_secs(240));
    let seconds = f64::from(u32::try_from(played.frames).unwrap()) / played.fps;
    let after = writes(&mut guest);
    println!("{} writes before, {} in {seconds:.0} s", before, after - before);
    assert!(before > 0, "making the data partition is seen");
    let memory = guest.first_line("firmware: memory");
    println!("{memory}");
    assert!(value(&memory, "used_kb").parse::<u64>().unwrap() <= 64 << 10, "{memory}");
    assert!(seconds >= 59.0, "{played:?}");
    assert_eq!(after - before, 0);
}

#[test]
fn a_card_of_16_gb_is_made_and_found_again() {
    if !ready() {
        return;
    }
    let card = Card::new("16g", 16 << 30);
    let mut guest = Guest::boot(&card.options("card-virt"));
    println!("{}", guest.first_line("storage: done"));
    drop(guest);
    assert_eq!(card.data(), (0x83, 122_880, (16 << 21) - 122_880));

    // The drop was a power cut: the file system was never unmounted.
    let mut guest = Guest::boot(&card.options("card-virt"));
    let done = guest.first_line("storage: done");
    println!("second start: {done}");
    assert!(guest.has_said("storage: mounted target=/data") && !guest.has_said("is being made"));
}

#[test]
fn a_first_start_that_was_cut_short_is_done_again() {
    if !ready() {
        return;
    }
    let card = Card::new("cut", 128 << 20);
    // Reserved in the table, and a superblock that only looks like one.
    let entry = [0, 0xfe, 0xff, 0xff, 0xda, 0xfe, 0xff, 0xff, 0, 0xe0, 1, 0, 0, 0x20, 2, 0];
    card.write(446 + 16, &entry);
    assert_eq!(card.data(), (0xda, 122_880, 139_264));
    card.write((60 << 20) + 1024 + 56, &[0x53, 0xef]);
    let mut guest = Guest::boot(&card.options("card-virt"));
    let _ = guest.first_line("storage: data partition is being made");
    let _ = guest.first_line("storage: mounted target=/data");
    drop(guest);
    assert_eq!(card.data().0, 0x83);
}
