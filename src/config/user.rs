//! Who may watch and who may change things.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::json::Entry;
use super::{Error, NotAllowed};

/// One account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct User {
    pub name: String,
    pub role: Role,
    pub password: Password,
}

/// What an account may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything.
    Admin,
    /// Watch streams.
    Viewer,
}

/// A password in the clear, which Digest needs (RFC 7616 3.4.2); no message ever shows it.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Password(String);

impl User {
    pub(super) fn read(entry: &Entry<'_>) -> Result<Self, Error> {
        let object = entry.object(&["name", "role", "password"])?;
        Ok(Self {
            name: object.require("name", USER_NAMES, |entry| entry.parsed_by(parse_user_name))?,
            role: object.require("role", ROLES, Entry::parsed)?,
            password: object.require("password", PASSWORDS, Entry::parsed)?,
        })
    }
}

impl FromStr for Role {
    type Err = NotAllowed;

    fn from_str(text: &str) -> Result<Self, NotAllowed> {
        match text {
            "admin" => Ok(Self::Admin),
            "viewer" => Ok(Self::Viewer),
            _ => Err(NotAllowed(ROLES)),
        }
    }
}

impl Password {
    /// The password itself: for the computation of digests and for the owner's eyes.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl FromStr for Password {
    type Err = NotAllowed;

    fn from_str(text: &str) -> Result<Self, NotAllowed> {
        let fits = (1..=MAX_PASSWORD_LEN).contains(&text.len());
        fits.then(|| Self(text.to_owned())).ok_or(NotAllowed(PASSWORDS))
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// Checks the name of an account.
///
/// RFC 7617 2 forbids the colon; quotes and backslashes come out differently from different
/// clients' quoted strings.
///
/// # Errors
///
/// [`NotAllowed`], which says what a name may hold.
pub fn parse_user_name(text: &str) -> Result<String, NotAllowed> {
    let is_bad = |c: char| c.is_control() || [':', '"', '\\'].contains(&c);
    let fits = (1..=MAX_USER_NAME_LEN).contains(&text.len()) && !text.chars().any(is_bad);
    fits.then(|| text.to_owned()).ok_or(NotAllowed(USER_NAMES))
}

/// What must hold for the accounts together.
pub(super) fn validate(users: &[User]) -> Result<(), Error> {
    let not_allowed = |path: String, value: String, allowed: &str| Error::NotAllowed {
        path,
        value,
        allowed: allowed.into(),
    };
    if users.len() > MAX_USERS {
        let value = format!("a list of {}", users.len());
        return Err(not_allowed("users".into(), value, "a list of at most 16 users"));
    }
    for (index, user) in users.iter().enumerate() {
        if users[..index].iter().any(|earlier| earlier.name == user.name) {
            let (path, value) = (format!("users[{index}].name"), format!("{:?}", user.name));
            return Err(not_allowed(path, value, "a name that no other user has"));
        }
    }
    Ok(())
}

const ROLES: &str = "\"admin\" or \"viewer\"";
const USER_NAMES: &str =
    "1 to 64 bytes without colons, double quotes, backslashes and control characters";
const PASSWORDS: &str = "1 to 256 bytes";
const MAX_USER_NAME_LEN: usize = 64;
const MAX_PASSWORD_LEN: usize = 256;
/// Accounts: every failed login tries each of them.
const MAX_USERS: usize = 16;
