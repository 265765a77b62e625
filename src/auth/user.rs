//! Who may be let in.

use std::fmt;

/// Somebody who may watch.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub password: String,
    pub role: Role,
}

impl fmt::Debug for User {
    /// Leaves the password out, so that no log can hold it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("name", &self.name)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// What a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything; always finds a free session slot while viewers fill the others.
    Admin,
    /// Watch.
    Viewer,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_has_no_password() {
        let user = User { name: "ann".into(), password: "s3cret".into(), role: Role::Admin };
        let text = format!("{user:?}");
        assert!(text.contains("ann") && !text.contains("s3cret"));
    }
}
