//! The OpenAPI document, kept in the repository and compared with what the handlers say.

use anyhow::Result;
use std::fs;
use std::path::{Path, PathBuf};

fn path(root: &Path) -> PathBuf {
    root.join("openapi/tintype.json")
}

pub(crate) fn write(root: &Path) -> Result<()> {
    fs::create_dir_all(root.join("openapi"))?;
    Ok(fs::write(path(root), tintype_server::openapi_json())?)
}

/// What is wrong with the document in the repository, if anything.
pub(crate) fn flaw(root: &Path) -> Option<String> {
    let kept = fs::read_to_string(path(root)).unwrap_or_default();
    (kept != tintype_server::openapi_json()).then(|| {
        "openapi/tintype.json is not what the handlers say: cargo xtask openapi".to_owned()
    })
}
