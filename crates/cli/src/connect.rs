//! Finds the server: by option, environment, the user's configuration, or on this machine.

use crate::failure::Failure;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tintype_wire::client::Client;

/// How to reach a server, as it leaves it in `client.toml`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Access {
    pub(crate) url: Option<String>,
    pub(crate) token: Option<String>,
    /// A file with the certificates of whoever has signed the server's.
    pub(crate) ca: Option<PathBuf>,
}

/// Where a server keeps its data unless told otherwise.
pub(crate) fn default_data() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/tintype");
    }
    home().join(".local/share/tintype")
}

fn home() -> PathBuf {
    std::env::var_os("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from)
}

/// Which server was named.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) url: Option<String>,
    pub(crate) token: Option<String>,
    pub(crate) ca: Option<PathBuf>,
}

impl Server {
    /// How to reach it; a token is looked for where one is needed.
    pub(crate) fn find(&self, signed_in: bool) -> Result<Access, Failure> {
        let places = [config(), default_data().join("client.toml")];
        let mut access =
            Access { url: self.url.clone(), token: self.token.clone(), ca: self.ca.clone() };
        for place in places {
            if access.url.is_some() && (access.token.is_some() || !signed_in) {
                break;
            }
            let Ok(text) = fs::read_to_string(&place) else {
                continue;
            };
            let found: Access = toml::from_str(&text).map_err(|error| {
                Failure::plain(format!("{} is not understood", place.display()), error.to_string())
            })?;
            // A token is for the server it was found with.
            if access.url.is_none() || access.url == found.url {
                access.token = access.token.or(found.token);
                access.url = access.url.or(found.url);
                access.ca = access.ca.or(found.ca);
            }
        }
        if access.url.is_none() {
            return Err(Failure::plain("no server is known", "")
                .hint("start one with tintype serve, or give --url and --token"));
        }
        Ok(access)
    }

    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let access = self.find(true)?;
        let (url, token) = (access.url.unwrap_or_default(), access.token.unwrap_or_default());
        Ok(Client::new(&url, &token, access.ca.as_deref())?)
    }
}

fn config() -> PathBuf {
    home().join(".config/tintype/config.toml")
}

/// Keeps how to reach a server for later commands; answers where.
pub(crate) fn keep(access: Access) -> Result<PathBuf, Failure> {
    let path = config();
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let text = toml::to_string(&access)
        .map_err(|error| Failure::plain("this cannot be kept", error.to_string()))?;
    write_secret(&path, &text)?;
    Ok(path)
}

/// Writes a file that nobody else reads, in one step.
pub(crate) fn write_secret(path: &Path, text: &str) -> std::io::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(fresh, path)
}
