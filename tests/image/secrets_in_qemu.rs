//! What must not be in an image before its first start: keys, passwords, a device's own identity.
//!
//! Every byte of the card is looked at, and every byte of the kernel and of the unpacked initramfs.
//! A secret is what somebody could use: a name without a value, or the marker of a key without a
//! key behind it, as programs that read keys have it, is none.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::card::{Card, image};
use crate::card_in_qemu::ready;

/// What was found on a card: where, and which kind.
fn secrets_of(card: &Card) -> Vec<String> {
    let raw = std::fs::read(card.path()).unwrap();
    let kernel = card.get("vmlinuz").map(|kernel| filter("gzip", &["-dc"], &kernel)).unwrap();
    let system = unpacked(card);
    let places = [("card", raw), ("kernel", kernel), ("initramfs", system)];
    let mut found = Vec::new();
    for (place, bytes) in &places {
        found.extend(secrets_in(bytes).map(|(at, kind)| format!("{place}+{at}: {kind}")));
    }
    let names = names_of_archive(&places[2].1);
    // One that is there for certain: else the archive was not understood.
    assert!(names.iter().any(|name| name == "init"), "{names:?}");
    let is_own = |name: &&String| OWN_FILES.iter().any(|own| Path::new(*name).ends_with(own));
    found.extend(names.iter().filter(is_own).map(|name| format!("initramfs: a file {name}")));
    found
}

fn unpacked(card: &Card) -> Vec<u8> {
    filter("zstd", &["-dc"], &card.get("initramfs.cpio.zst").unwrap())
}

/// The names in archives of the "newc" format that follow each other.
fn names_of_archive(bytes: &[u8]) -> Vec<String> {
    let (mut names, mut at) = (Vec::new(), 0);
    while let Some(header) = bytes.get(at..at + 110).filter(|header| header.starts_with(b"070701"))
    {
        let field = |index: usize| {
            let digits = str::from_utf8(&header[6 + index * 8..][..8]).unwrap();
            usize::from_str_radix(digits, 16).unwrap()
        };
        let (len, name_len) = (field(6), field(11));
        let name = &bytes[at + 110..][..name_len - 1];
        names.push(String::from_utf8_lossy(name).trim_start_matches("./").to_owned());
        at = (at + 110 + name_len).next_multiple_of(4) + len;
        at = at.next_multiple_of(4);
        // Archives are filled up with zeros.
        at += bytes[at..].iter().take_while(|byte| **byte == 0).count();
    }
    names
}

fn secrets_in(bytes: &[u8]) -> impl Iterator<Item = (usize, &'static str)> {
    (0..bytes.len()).filter_map(|at| Some((at, secret_at(&bytes[at..])?)))
}

/// The kind of secret that begins here.
fn secret_at(bytes: &[u8]) -> Option<&'static str> {
    let is_secret = match bytes.first()? {
        b'P' => (is_pem(bytes), "a private key (PEM)"),
        b'"' => (is_json(bytes), "a password (JSON)"),
        b'p' => (is_assignment(bytes), "a password (text)"),
        b'$' => (is_crypt(bytes), "a password's hash"),
        0x30 => (is_der(bytes), "a private key (DER)"),
        _ => return None,
    };
    is_secret.0.then_some(is_secret.1)
}

/// RFC 7468: the end of the line "-----BEGIN ... PRIVATE KEY-----", and text in base64 below.
fn is_pem(bytes: &[u8]) -> bool {
    let Some(rest) = bytes.strip_prefix(b"PRIVATE KEY-----") else { return false };
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=".contains(byte);
    // In JSON a line ends with a backslash and an n; older keys have headers first.
    let lines = rest.split(|&byte| byte == b'\n' || byte == b'\\').take(6);
    lines.map(|line| line.strip_prefix(b"n").unwrap_or(line)).any(|line| {
        let line = line.trim_ascii_end();
        line.len() >= 32 && line.iter().take(64).all(is_base64)
    })
}

/// "password": "something", however it is spaced.
fn is_json(bytes: &[u8]) -> bool {
    let key = |name: &&str| bytes[1..].strip_prefix(name.as_bytes())?.strip_prefix(b"\"");
    let Some(rest) = SECRET_KEYS.iter().find_map(key) else { return false };
    let value = rest.trim_ascii_start().strip_prefix(b":").map(<[u8]>::trim_ascii_start);
    value.and_then(|value| value.strip_prefix(b"\"")).is_some_and(|value| {
        // The dots are those of an example in a text.
        let is_example = value.starts_with(b"...\"");
        !is_example && value.first().is_some_and(|byte| *byte != b'"' && !byte.is_ascii_control())
    })
}

/// psk=..., password=..., as wpa_supplicant and hostapd have them: with quotes or 64 digits.
fn is_assignment(bytes: &[u8]) -> bool {
    let value = ["psk=", "password=", "passphrase="];
    let Some(value) = value.iter().find_map(|key| bytes.strip_prefix(key.as_bytes())) else {
        return false;
    };
    match value.strip_prefix(b"\"") {
        Some(quoted) => quoted.iter().take(8).all(|byte| byte.is_ascii_graphic() && *byte != b'%'),
        None => value.len() >= 64 && value[..64].iter().all(u8::is_ascii_hexdigit),
    }
}

/// crypt(5): $6$SALT$HASH.
fn is_crypt(bytes: &[u8]) -> bool {
    let [b'$', b'1' | b'5' | b'6' | b'y', b'$', rest @ ..] = bytes else { return false };
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || b"./$".contains(byte);
    rest.len() >= 30 && rest[..30].iter().all(is_digit) && rest[..30].contains(&b'$')
}

/// RFC 5958 for RSA, EC and Edwards curves; RFC 5915 (EC); RFC 8017 A.1.2 (RSA).
fn is_der(bytes: &[u8]) -> bool {
    let content = match bytes {
        [0x30, 0x82, _, _, content @ ..] | [0x30, 0x81, _, content @ ..] => content,
        [0x30, 0..=0x7f, content @ ..] => content,
        _ => return false,
    };
    match content {
        [2, 1, 0 | 1, 0x30, 0x0d, 6, 9, rest @ ..] => rest.starts_with(RSA),
        [2, 1, 0 | 1, 0x30, _, 6, 7, rest @ ..] => rest.starts_with(EC) && !is_form(content),
        [2, 1, 0 | 1, 0x30, 5, 6, 3, 0x2b, 0x65, ..] => !is_form(content),
        [2, 1, 1, 4, len @ (0x20 | 0x30 | 0x42), rest @ ..] => {
            rest.get(usize::from(*len)).is_some_and(|tag| [0xa0, 0xa1].contains(tag))
        }
        // The modulus, then the public exponent 65537.
        [2, 1, 0, 2, 0x82, high, low, rest @ ..] => {
            let len = usize::from(u16::from_be_bytes([*high, *low]));
            let is_published = PUBLISHED.iter().any(|modulus| rest.starts_with(modulus));
            !is_published && rest.get(len..).is_some_and(|rest| rest.starts_with(&[2, 3, 1, 0, 1]))
        }
        _ => false,
    }
}

/// Whether the public key follows where the private one would be: libraries hold such forms, to
/// fill them in.
fn is_form(content: &[u8]) -> bool {
    let start = content.get(..64).unwrap_or(content);
    let is_edwards = start.windows(5).any(|at| matches!(at, [4, 0x20, 0x81, 0x21, 0]));
    let is_curve = start.windows(7).any(|at| {
        matches!(at, [4, 0x20 | 0x30 | 0x42, 0xa1, outer, 3, inner, 0] if *outer == *inner + 2)
    });
    is_edwards || is_curve
}

/// What a program makes of its input.
fn filter(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        // It may fill its output before it has read all.
        scope.spawn(move || stdin.write_all(input).unwrap());
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{program}");
    output.stdout
}

/// One file of an archive of the "newc" format.
fn entry(name: &str, content: &[u8]) -> Vec<u8> {
    let (len, name_len) = (content.len(), name.len() + 1);
    let fields = [1, 0o100_600, 0, 0, 1, 0, len, 0, 0, 0, 0, name_len, 0];
    let mut bytes = b"070701".to_vec();
    bytes.extend(fields.iter().flat_map(|field| format!("{field:08X}").into_bytes()));
    bytes.extend_from_slice(name.as_bytes());
    bytes.resize((bytes.len() + 1).next_multiple_of(4), 0);
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// One secret of each kind; none of them opens anything.
fn planted() -> [Vec<u8>; 9] {
    let pem = format!("-----BEGIN EC PRIVATE KEY-----\n{}\n", "MHcCAQEE".repeat(8));
    let ec = [&[0x30, 0x77, 2, 1, 1, 4, 0x20][..], &[7; 32], &[0xa0, 0x0a]].concat();
    let info = [&[0x30, 0x81, 0x87, 2, 1, 0, 0x30, 0x13, 6, 7][..], EC].concat();
    let edwards = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22].to_vec();
    let rsa = [&[0x30, 0x82, 4, 0xa4, 2, 1, 0, 2, 0x82, 1, 1][..], &[9; 257], &[2, 3, 1, 0, 1]];
    [
        pem.clone().into_bytes(),
        pem.replace('\n', "\\n").into_bytes(),
        br#"{ "users": [ { "name": "admin", "password" : "correct horse" } ] }"#.to_vec(),
        b"network={\n\tssid=\"x\"\n\tpsk=\"correct-horse\"\n}".to_vec(),
        b"root:$6$Kq1hA/Zk$0123456789abcdefghijklmnopqrstuvwxyz:19000::".to_vec(),
        ec,
        info,
        edwards,
        rsa.concat(),
    ]
}

#[test]
fn each_kind_of_secret_is_found_and_what_only_looks_like_one_is_not() {
    for secret in planted() {
        let found = secrets_in(&secret).count();
        assert_eq!(found, 1, "{}", secret.escape_ascii());
    }
    let curve = &[0x30, 0x81, 0x87, 2, 1, 0, 0x30, 0x13, 6, 7];
    let inside = &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7, 4, 0x6d, 0x30, 0x6b, 2, 1, 1];
    let form = [&curve[..], EC, inside, &[4, 0x20, 0xa1, 0x44, 3, 0x42, 0]].concat();
    let filled_in = [&curve[..], EC, inside, &[4, 0x20], &[7; 32], &[0xa1, 0x44, 3, 0x42, 0]];
    assert!(secrets_in(&filled_in.concat()).next().is_some());
    let edwards = [0x30, 0x51, 2, 1, 1, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    let edwards_form = [&edwards[..], &[0x81, 0x21, 0]].concat();
    let harmless: [&[u8]; 7] = [
        &form,
        &edwards_form,
        b"-----BEGIN RSA PRIVATE KEY-----\0-----END RSA PRIVATE KEY-----\0",
        br#"{ "password": "", "psk": "..." }, "password" is missing"#,
        b"psk=\"%s\" password=\0",
        b"$1$2 $6$\0",
        b"-----BEGIN CERTIFICATE-----\nMHcCAQEEMHcCAQEEMHcCAQEEMHcCAQEE\n",
    ];
    for text in harmless {
        assert_eq!(secrets_in(text).next(), None, "{}", text.escape_ascii());
    }
}

#[test]
fn the_image_has_no_key_and_no_password_and_the_search_finds_planted_ones() {
    if !ready() {
        return;
    }
    let len = std::fs::metadata(image()).unwrap().len();
    let card = Card::new("secrets", len);
    assert_eq!(secrets_of(&card), [""; 0]);

    // Packed, where no search of the card itself would see it.
    let mut system = unpacked(&card);
    system.extend(planted().iter().flat_map(|secret| entry("etc/planted", secret)));
    system.extend(entry("data/device.json", b"{}"));
    card.put("initramfs.cpio.zst", &filter("zstd", &["-1", "-c"], &system));
    card.put("planted", &planted()[2]);
    let found = secrets_of(&card);
    println!("planted and found: {found:#?}");
    let in_system = found.iter().filter(|line| line.starts_with("initramfs")).count();
    assert_eq!((in_system, found.len() - in_system), (planted().len() + 1, 1));
}

const SECRET_KEYS: [&str; 7] =
    ["password", "psk", "passphrase", "secret", "private_key", "token", "key"];

/// What a device makes for itself (`firmware::provision`), and what other systems make.
const OWN_FILES: [&str; 5] =
    ["device.json", "machine-id", "random-seed", "ssh_host_ed25519_key", "ssh_host_rsa_key"];

/// How the moduli of the RSA keys begin with which the kernel tests itself (crypto/testmgr.h).
const PUBLISHED: [[u8; 5]; 2] = [[0, 0xd7, 0x1e, 0x77, 0x82], [0, 0xdb, 0x10, 0x1a, 0xc2]];

/// Object identifiers: 1.2.840.113549.1.1 and 1.2.840.10045.2.1.
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1];
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
