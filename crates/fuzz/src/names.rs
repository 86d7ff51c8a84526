//! Names, descriptions, moments and places in lists.

use tintype_model::Moment;
use tintype_model::name::{
    check_description, check_snapshot_name, check_vm_name, default_snapshot_name,
};
use tintype_store::Cursor;
use uuid::Uuid;

/// What is taken as a name can stand where names stand; what is read comes back as it was written.
pub fn names(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if check_vm_name(&text).is_ok() {
        assert!((1..=63).contains(&text.len()) && text.is_ascii() && !text.contains(['/', ' ']));
        assert!(!text.starts_with(['.', '-']) && Uuid::parse_str(&text).is_err());
    }
    if check_snapshot_name(&text).is_ok() {
        assert!(!text.trim().is_empty() && !text.chars().any(char::is_control));
    }
    if check_description(&text).is_ok() {
        assert!(text.chars().count() <= 4096);
    }
    if let Ok(cursor) = text.parse::<Cursor>() {
        let again = cursor.to_string().parse::<Cursor>();
        assert_eq!(again.as_ref().ok(), Some(&cursor));
    }
    if let Ok(at) = Moment::from_rfc3339(&text) {
        assert_eq!(Moment::from_rfc3339(&at.to_rfc3339()).ok(), Some(at));
        assert!(check_snapshot_name(&default_snapshot_name(at, |_| false)).is_ok());
    }
}
