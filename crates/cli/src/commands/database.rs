//! `tintype database`

use super::serve::{cannot_use, lock};
use crate::connect::default_data;
use crate::context::Context;
use crate::failure::Failure;
use clap::Subcommand;
use rustix::fs::Mode;
use rustix::process::umask;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use tintype_store::{check_copy, put_back};

#[derive(Debug, Subcommand)]
pub(crate) enum DatabaseVerb {
    /// Save a copy of the database as it is now, while it is used
    Save {
        /// Where to; a file that is not there yet
        file: PathBuf,
    },
    /// Put a copy in the place of the database; the server must not run. What virtual machines have
    /// become since is taken up afterwards: tintype host adopt
    Restore {
        /// The copy
        file: PathBuf,
        /// Where everything is kept [default: /var/lib/tintype, or ~/.local/share/tintype]
        #[arg(long)]
        data: Option<PathBuf>,
    },
}

/// Saves a copy: there is all of it or nothing.
pub(crate) async fn save(context: &Context, file: &Path) -> Result<(), Failure> {
    if file.symlink_metadata().is_ok() {
        let why = io::Error::from(io::ErrorKind::AlreadyExists);
        return Err(cannot_use(file, &why).hint("give a name that nothing has yet"));
    }
    // It holds what is needed to guess passwords.
    umask(Mode::from_raw_mode(0o077));
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    let part = PathBuf::from(name);
    let saved = save_as(context, &part).await;
    let named = saved.and_then(|()| fs::rename(&part, file).map_err(|e| cannot_use(file, &e)));
    if named.is_err() {
        let _ = fs::remove_file(&part);
    }
    named
}

async fn save_as(context: &Context, part: &Path) -> Result<(), Failure> {
    let mut out = File::create(part).map_err(|error| cannot_use(part, &error))?;
    let mut written = Ok(());
    let chunk = |chunk: &[u8]| {
        if written.is_ok() {
            written = out.write_all(chunk);
        }
    };
    context.client.stream("/v1/database", chunk).await?;
    written.and_then(|()| out.sync_all()).map_err(|error| cannot_use(part, &error))?;
    check_copy(part).map_err(|error| cannot_use(part, &error))
}

/// Puts a copy in the place of the database in a folder that nobody serves.
pub(crate) fn restore(file: &Path, data: Option<PathBuf>) -> Result<(), Failure> {
    umask(Mode::from_raw_mode(0o077));
    let data = data.unwrap_or_else(default_data);
    check_copy(file).map_err(|error| cannot_use(file, &error))?;
    fs::create_dir_all(&data).map_err(|error| cannot_use(&data, &error))?;
    let _lock = lock(&data)?;
    let database = data.join("tintype.db");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let kept = put_back(file, &database, &now.as_secs().to_string());
    let kept = kept.map_err(|error| cannot_use(&database, &error))?;
    println!("{} is in place", database.display());
    if let Some(kept) = kept {
        println!("what was there before is {}", kept.display());
    }
    println!("start the server, then see what has changed since: tintype host adopt --dry-run");
    Ok(())
}
