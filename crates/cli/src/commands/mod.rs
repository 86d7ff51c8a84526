//! The verbs: one file for each noun.

pub(crate) mod check;
pub(crate) mod completion;
pub(crate) mod database;
pub(crate) mod disk;
pub(crate) mod event;
pub(crate) mod host;
pub(crate) mod list;
pub(crate) mod operation;
pub(crate) mod people;
pub(crate) mod profile;
pub(crate) mod serve;
pub(crate) mod snapshot;
pub(crate) mod token;
pub(crate) mod tree;
pub(crate) mod vm;

/// Escapes what stands in an address.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(byte));
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}
