//! Copies of the database, for who keeps them elsewhere.

use super::{Answer, App, stored};
use std::fs::File;
use tintype_model::Refusal;
use tintype_model::access::{Action, Caller};
use tintype_model::refusal::Code;

impl App {
    /// A copy of the database as it is now, in a file beside it that is gone when it is
    /// closed.
    ///
    /// # Errors
    /// When the caller may not, or there is no room for it.
    pub async fn copy_database(&self, caller: &Caller) -> Answer<File> {
        caller.may_ever(Action::ManageHosts)?;
        let (store, name) = (self.store.clone(), format!("{}.copy", self.fresh()));
        let copy = move || store.copied(&name).map_err(stored);
        let failed = |error: tokio::task::JoinError| {
            Err(Refusal::new(Code::Internal).detail(error.to_string()))
        };
        tokio::task::spawn_blocking(copy).await.unwrap_or_else(failed)
    }
}
