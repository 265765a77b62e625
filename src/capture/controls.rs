//! Sets a camera's controls by name, within their real ranges and in an order that works.
//!
//! V4L2, "User Controls". A mode can lock a value, as `auto_exposure` does with `exposure`; so
//! modes are set first.

use super::Error;
use super::node::{Node, failure, listed};
use crate::sys::v4l2::{Control, ControlKind};

/// The controls that can be set.
pub(super) fn list(node: &Node) -> Result<Vec<Control>, Error> {
    let refused = |error| failure(node.path(), Some(node.device()), error);
    node.device().controls().map_err(refused)
}

/// Sets what can be set; the error is about the first that cannot.
pub(super) fn apply<'a>(
    node: &Node,
    values: impl IntoIterator<Item = (&'a str, i64)>,
) -> Result<(), Error> {
    let controls = list(node)?;
    let mut first_error = None;
    let mut known = Vec::new();
    for (name, value) in values {
        match controls.iter().find(|control| control.name == name) {
            Some(control) => known.push((control, value)),
            None => {
                first_error.get_or_insert_with(|| no_such(node, name, &controls));
            }
        }
    }
    // Stable: by name within each kind.
    known.sort_by_key(|(control, _)| !is_mode(control));
    for (control, value) in known {
        if let Err(error) = set(node, control, value) {
            first_error.get_or_insert(error);
        }
    }
    first_error.map_or(Ok(()), Err)
}

fn set(node: &Node, control: &Control, value: i64) -> Result<(), Error> {
    let device = node.device();
    let menu = device.menu(control);
    let settable = i32::try_from(value).ok().filter(|_| is_allowed(control, &menu, value));
    let Some(settable) = settable else {
        return Err(Error::ControlRange {
            device: node.path().to_owned(),
            control: control.name.clone(),
            value,
            allowed: allowed(control, &menu),
        });
    };
    let refused = |error| failure(node.path(), Some(device), error);
    device.set_control(control, settable).map_err(refused)
}

fn no_such(node: &Node, name: &str, controls: &[Control]) -> Error {
    let offered: Vec<_> = controls.iter().map(|control| control.name.clone()).collect();
    Error::NoSuchControl {
        device: node.path().to_owned(),
        control: name.to_owned(),
        offered: listed(&offered),
    }
}

/// Whether the control decides what others may be.
const fn is_mode(control: &Control) -> bool {
    matches!(control.kind, ControlKind::Menu | ControlKind::Boolean)
}

fn is_allowed(control: &Control, menu: &[(i64, String)], value: i64) -> bool {
    match control.kind {
        ControlKind::Button => true,
        // A driver that cannot name its entries still has them.
        ControlKind::Menu if !menu.is_empty() => menu.iter().any(|(index, _)| *index == value),
        // The bits that may be set.
        ControlKind::Bitmask => value & !control.max == 0,
        _ => (control.min..=control.max).contains(&value),
    }
}

/// What people may choose from.
fn allowed(control: &Control, menu: &[(i64, String)]) -> String {
    let Control { min, max, step, default, .. } = control;
    match control.kind {
        ControlKind::Menu if !menu.is_empty() => {
            let entries: Vec<_> =
                menu.iter().map(|(index, name)| format!("{index} ({name})")).collect();
            entries.join(", ")
        }
        ControlKind::Bitmask => format!("bits of {max:#x}"),
        _ if *step > 1 => format!("{min} to {max} in steps of {step}, usually {default}"),
        _ => format!("{min} to {max}, usually {default}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(kind: ControlKind, min: i64, max: i64) -> Control {
        Control::new("some_control", kind, min..=max)
    }

    #[test]
    fn values_are_held_against_the_real_range() {
        let brightness = control(ControlKind::Integer, -64, 64);
        for (value, is_in) in [(-65, false), (-64, true), (0, true), (64, true), (65, false)] {
            assert_eq!(is_allowed(&brightness, &[], value), is_in, "{value}");
        }
        assert_eq!(allowed(&brightness, &[]), "-64 to 64, usually -64");
    }

    #[test]
    fn a_hole_in_a_menu_cannot_be_chosen() {
        let exposure = control(ControlKind::Menu, 0, 3);
        let menu = [(1, "Manual Mode".to_owned()), (3, "Aperture Priority Mode".to_owned())];
        assert!(!is_allowed(&exposure, &menu, 0) && is_allowed(&exposure, &menu, 1));
        assert!(!is_allowed(&exposure, &menu, 2) && is_allowed(&exposure, &menu, 3));
        assert_eq!(allowed(&exposure, &menu), "1 (Manual Mode), 3 (Aperture Priority Mode)");
        assert!(is_allowed(&exposure, &[], 2), "a driver that names no entries is asked");
    }

    #[test]
    fn of_a_bitmask_only_the_bits_that_exist_can_be_set() {
        let mask = control(ControlKind::Bitmask, 0, 5);
        assert!(is_allowed(&mask, &[], 4) && is_allowed(&mask, &[], 5));
        assert!(!is_allowed(&mask, &[], 2) && !is_allowed(&mask, &[], -1));
    }

    #[test]
    fn modes_are_told_from_values() {
        assert!(is_mode(&control(ControlKind::Menu, 0, 3)));
        assert!(is_mode(&control(ControlKind::Boolean, 0, 1)));
        assert!(!is_mode(&control(ControlKind::Integer, 0, 1)));
    }
}
