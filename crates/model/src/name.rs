//! Names people give (R14).

use crate::moment::Moment;
use crate::refusal::{Code, Refusal};
use uuid::Uuid;

/// Longest name of a snapshot, in characters.
const SNAPSHOT_NAME_MOST: usize = 255;
/// Longest name of a virtual machine, in characters.
const VM_NAME_MOST: usize = 63;
/// Longest description, in characters.
const DESCRIPTION_MOST: usize = 4096;

/// Refuses what cannot name a virtual machine: `[A-Za-z0-9][A-Za-z0-9._-]{0,62}`, not shaped like a
/// uuid, since an address takes either.
pub fn check_vm_name(name: &str) -> Result<(), Refusal> {
    let first = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    let rest = name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if !first || !rest || name.len() > VM_NAME_MOST {
        return Err(Refusal::new(Code::NameInvalid)
            .detail(format!("{name:?} cannot name a virtual machine"))
            .hint("1 to 63 of the characters A-Z a-z 0-9 . _ -, the first a letter or digit"));
    }
    if Uuid::parse_str(name).is_ok() {
        return Err(Refusal::new(Code::NameInvalid)
            .detail(format!("{name:?} is shaped like an id"))
            .hint("choose a name that is not a uuid, so that it cannot be mistaken for one"));
    }
    Ok(())
}

/// Refuses what cannot name a snapshot: 1 to 255 characters without control characters.
pub fn check_snapshot_name(name: &str) -> Result<(), Refusal> {
    let length = name.chars().count();
    if length == 0 || length > SNAPSHOT_NAME_MOST || name.chars().any(char::is_control) {
        return Err(Refusal::new(Code::NameInvalid)
            .detail(format!("a snapshot's name of {length} characters was given"))
            .hint("1 to 255 characters, none of them a control character"));
    }
    if name.trim().is_empty() {
        return Err(Refusal::new(Code::NameInvalid)
            .detail("a snapshot's name was nothing but blanks")
            .hint("use at least one visible character"));
    }
    Ok(())
}

/// Refuses a description that is too long.
pub fn check_description(description: &str) -> Result<(), Refusal> {
    let length = description.chars().count();
    if length > DESCRIPTION_MOST {
        return Err(Refusal::new(Code::InvalidRequest)
            .detail(format!("the description has {length} characters"))
            .hint("a description has 4096 characters at most"));
    }
    Ok(())
}

/// The name of a snapshot that was given none: its moment, with ` (2)` and so on where taken.
pub fn default_snapshot_name(at: Moment, taken: impl Fn(&str) -> bool) -> String {
    let name = at.as_default_name();
    if !taken(&name) {
        return name;
    }
    (2_u32..)
        .map(|n| format!("{name} ({n})"))
        .find(|candidate| !taken(candidate))
        .expect("there are more numbers than snapshots")
}

#[cfg(test)]
mod tests {
    use super::{check_snapshot_name, check_vm_name, default_snapshot_name};
    use crate::moment::Moment;

    /// R14.
    #[test]
    fn vm_names_are_letters_digits_and_a_few_marks() {
        let long = "a".repeat(63);
        for good in ["a", "Web-1.example_x", "0", long.as_str()] {
            assert!(check_vm_name(good).is_ok(), "{good}");
        }
        let longer = "a".repeat(64);
        let uuid = "67e55044-10b1-426f-9247-bb680e5fe0c8";
        for bad in ["", "-a", ".a", "a b", "a/b", "ä", "a\n", longer.as_str(), uuid] {
            assert!(check_vm_name(bad).is_err(), "{bad:?}");
        }
    }

    /// R14.
    #[test]
    fn snapshot_names_are_free_text_without_control_characters() {
        let long = "ä".repeat(255);
        for good in ["before upgrade", "../../etc", "x", long.as_str()] {
            assert!(check_snapshot_name(good).is_ok(), "{good}");
        }
        let longer = "ä".repeat(256);
        for bad in ["", " ", "a\tb", "a\n", "\u{7f}", longer.as_str()] {
            assert!(check_snapshot_name(bad).is_err(), "{bad:?}");
        }
    }

    /// R14, C27.
    #[test]
    fn a_default_name_that_is_taken_gets_a_number() {
        let at = Moment(1_795_185_965_000);
        assert_eq!(default_snapshot_name(at, |_| false), "2026-11-20 14:46:05Z");
        let taken = ["2026-11-20 14:46:05Z", "2026-11-20 14:46:05Z (2)"];
        let name = default_snapshot_name(at, |candidate| taken.contains(&candidate));
        assert_eq!(name, "2026-11-20 14:46:05Z (3)");
    }
}
