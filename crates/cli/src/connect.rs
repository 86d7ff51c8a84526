//! Finds the server: by option, environment, the user's configuration, or on this machine.

use crate::failure::Failure;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::PathBuf;
use tintype_wire::client::Client;

/// How to reach a server, as it leaves it in `client.toml`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Access {
    pub(crate) url: Option<String>,
    pub(crate) token: Option<String>,
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

pub(crate) fn client(url: Option<&str>, token: Option<&str>) -> Result<Client, Failure> {
    let places = [home().join(".config/tintype/config.toml"), default_data().join("client.toml")];
    let mut access = Access { url: url.map(str::to_owned), token: token.map(str::to_owned) };
    for place in places {
        if access.url.is_some() && access.token.is_some() {
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
        }
    }
    let url = access.url.ok_or_else(|| {
        Failure::plain("no server is known", "")
            .hint("start one with tintype serve, or give --url and --token")
    })?;
    let token = access.token.unwrap_or_default();
    Ok(Client::new(&url, &token))
}
