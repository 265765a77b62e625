//! The camera on a wireless network: simulated radios, a real access point, and no cable.
//!
//! hostapd runs in the guest, around the camera (board/raspberrypi/test/). Behind it is QEMU's
//! network, so that DHCP and the player go through the air.

use std::path::PathBuf;
use std::time::Duration;

use crate::card::Card;
use crate::card_in_qemu;
use crate::guest::{Guest, Options, root, value};
use crate::in_qemu::is_ready;
use crate::player;

fn archive() -> PathBuf {
    root().join("target/images/raspberrypi/test.cpio")
}

fn ready() -> bool {
    card_in_qemu::ready() && is_ready(&archive(), &[])
}

/// A card with a configuration as a person puts it there.
fn card(name: &str, psk: &str) -> Card {
    let card = Card::new(name, 128 << 20);
    let configuration = serde_json::json!({
        "name": "over the air",
        "streams": [{ "name": "main", "width": 320, "height": 240, "fps": 10, "bitrate_kbps": 500 }],
        "users": [{ "name": "admin", "role": "admin", "password": PASSWORD }],
        "network": { "wifi": { "ssid": "Ocellus Test", "psk": psk, "country": "DE" } }
    });
    card.put("ocellus.json", configuration.to_string().as_bytes());
    card
}

fn start(card: &Card, append: &'static str) -> Guest {
    Guest::start(&Options { append, archive: Some(archive()), ..card.options("card-virt") })
}

/// Decodes 25 pictures.
fn play(guest: &Guest) {
    let url = format!("rtsp://admin:{PASSWORD}@127.0.0.1:{}/main", guest.rtsp_port());
    let played = player::play(&url, "tcp", 25, Duration::from_secs(60));
    println!("{} frames, {:.1} per second", played.frames, played.fps);
    assert!(played.frames >= 25, "{played:?}");
}

#[test]
fn the_camera_joins_with_the_password_from_its_card_and_streams() {
    if !ready() {
        return;
    }
    let card = card("wpa2", PSK);
    let append = "rdinit=/test/init access_point=wpa2 RUST_LOG=ocellus=debug";
    let mut guest = start(&card, append);
    println!("{}", guest.line("network: wifi joined"));
    let lease = guest.first_line("network: lease acquired");
    println!("{lease}");
    assert_eq!((value(&lease, "interface"), value(&lease, "address")), ("wlan0", "10.0.2.15/24"));
    // The rules are the kernel's own, from the signed database in the image.
    let country = guest.first_line("access point: joined");
    assert!(country.contains("country DE: DFS-ETSI"), "{country}");
    let _ = guest.first_line("first access unit");
    play(&guest);
    assert!(!guest.has_said(PSK) && !guest.has_said("eth0"));
}

#[test]
fn wpa3_is_joined_and_a_supplicant_that_dies_is_replaced() {
    if !ready() {
        return;
    }
    let card = card("wpa3", PSK);
    let mut guest = start(&card, "rdinit=/test/init access_point=wpa3 then=kill");
    let _ = guest.line("network: wifi joined");
    let _ = guest.first_line("network: lease acquired");
    let _ = guest.line("access point: kills");
    println!("{}", guest.line("network: wifi ended"));
    println!("{}", guest.line("network: wifi started"));
    println!("{}", guest.line("network: wifi joined"));
    let _ = guest.line("network: lease confirmed");
    play(&guest);
}

#[test]
fn a_wrong_password_is_said_once_and_the_cable_goes_on() {
    if !ready() {
        return;
    }
    let card = card("wrong", "over the hills, please");
    let mut guest = start(&card, "rdinit=/test/init access_point=wpa2 wired=yes");
    println!("{}", guest.line("the password (psk) is wrong"));
    let lease = guest.first_line("network: lease acquired");
    assert_eq!(value(&lease, "interface"), "eth0");
    play(&guest);
    // The second attempt; what it led to follows it closely.
    let _ = guest.line("AP-STA-POSSIBLE-PSK-MISMATCH");
    let _ = guest.line("IEEE 802.11: deauthenticated");
    assert_eq!(guest.count("the password (psk) is wrong"), 1);
    assert!(!guest.has_said("network: wifi joined") && !guest.has_said("interface=wlan0 on=true"));
}

#[test]
fn a_network_that_comes_late_or_goes_away_is_joined_when_it_is_there() {
    if !ready() {
        return;
    }
    let card = card("late", PSK);
    let mut guest = start(&card, "rdinit=/test/init access_point=wpa2 late=30 then=vanish");
    println!("{}", guest.line("network: wifi network not found"));
    let _ = guest.line("access point: on");
    println!("{}", guest.line("network: wifi joined"));
    let _ = guest.first_line("network: lease acquired");
    let _ = guest.line("access point: off");
    println!("{}", guest.line("network: wifi left"));
    println!("{}", guest.line("network: wifi joined"));
    let _ = guest.line("network: lease confirmed");
    assert_eq!(guest.count("network: wifi network not found"), 1);
}

const PSK: &str = "over the air, please";
const PASSWORD: &str = "wifi-test-password";
