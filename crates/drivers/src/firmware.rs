//! The UEFI firmware of this host.

use std::path::Path;

/// Where distributions put the UEFI firmware, code and empty variable store.
const FIRMWARE: [(&str, &str); 2] = [
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
];

/// The UEFI firmware of this host: code and empty variable store.
pub fn firmware() -> Option<(&'static str, &'static str)> {
    FIRMWARE.into_iter().find(|(code, vars)| Path::new(code).exists() && Path::new(vars).exists())
}
