//! What the fuzzer has found worth keeping is fed again, by an ordinary compiler.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;
use tintype_fuzz::TARGETS;

#[test]
fn what_was_found_is_taken() -> Result<()> {
    for (name, feed) in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let files = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        let mut fed = 0;
        for file in files {
            feed(&fs::read(file?.path())?);
            fed += 1;
        }
        ensure!(fed > 0, "{name} has no corpus");
    }
    Ok(())
}
