//! Checks that a camera's controls are set by name, in their range, and in an order that works.

use std::collections::BTreeMap;

use ocellus::capture::{Camera, Error, Wanted};

use super::Check;
use super::bench::{Bench, next, small};

pub(super) const CHECKS: &[(&str, Check)] = &[
    ("a_control_takes_what_is_in_its_range_and_nothing_else", the_range),
    ("a_menu_takes_its_entries_and_nothing_else", a_menu),
    ("a_wrong_name_is_told_with_the_right_ones", a_wrong_name),
    ("what_can_be_set_is_set_though_another_cannot", some_of_them),
    ("a_camera_is_opened_with_its_controls_set", at_open),
];

fn the_range(bench: &Bench) {
    let mut camera = bench.camera();
    let controls = camera.controls().unwrap();
    let brightness = controls.iter().find(|control| control.name == "brightness").unwrap();
    assert_eq!((brightness.min, brightness.max, brightness.default), (0, 255, 128));
    for value in [0, 255, 128] {
        camera.set_control("brightness", value).unwrap();
        assert_eq!(bench.value("brightness"), value);
    }
    for value in [-1, 256, i32::MIN, i32::MAX] {
        let said = camera.set_control("brightness", value).unwrap_err().to_string();
        let wanted = format!(
            "{}: control `brightness` cannot be {value}: allowed are 0 to 255, usually 128",
            bench.path().display()
        );
        assert_eq!(said, wanted);
    }
    assert_eq!(bench.value("brightness"), 128);
    drop(next(&mut camera));
}

fn a_menu(bench: &Bench) {
    let camera = bench.camera();
    let said = camera.set_control("osd_text_mode", 3).unwrap_err().to_string();
    println!("  {said}");
    assert!(said.ends_with("cannot be 3: allowed are 0 (All), 1 (Counters Only), 2 (None)"));
    let before = bench.value("osd_text_mode");
    camera.set_control("osd_text_mode", 1).unwrap();
    assert_eq!(bench.value("osd_text_mode"), 1);
    camera.set_control("osd_text_mode", before).unwrap();
}

fn a_wrong_name(bench: &Bench) {
    match bench.camera().set_control("brigthness", 1) {
        Err(Error::NoSuchControl { control, offered, .. }) => {
            assert_eq!(control, "brigthness");
            assert!(offered.split(", ").any(|name| name == "brightness"), "{offered}");
        }
        other => panic!("{other:?}"),
    }
}

fn some_of_them(bench: &Bench) {
    let camera = bench.camera();
    let values = [("brightness", 300), ("contrast", 77), ("osd_text_mode", 2)];
    let values: BTreeMap<_, _> = values.map(|(name, value)| (name.to_owned(), value)).into();
    let error = camera.apply_controls(&values).unwrap_err();
    assert!(matches!(error, Error::ControlRange { value: 300, .. }), "{error}");
    assert_eq!((bench.value("contrast"), bench.value("osd_text_mode")), (77, 2));
    assert_eq!(bench.value("brightness"), 128);
    bench.set("contrast", 128);
}

fn at_open(bench: &Bench) {
    let wanted = Wanted { controls: [("brightness".to_owned(), 200)].into(), ..small() };
    for _ in 0..2 {
        let camera = Camera::open(bench.path(), &wanted).unwrap();
        assert!(matches!(camera, Camera::Raw(_)), "vivid encodes nothing");
        assert_eq!(bench.value("brightness"), 200);
        drop(camera);
        // As an unplugged one comes back.
        bench.set("brightness", 128);
    }
}
