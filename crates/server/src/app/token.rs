//! Signing in: tokens, which are kept as hashes and shown once, and passwords, which argon2 keeps.

use super::{Answer, App, stored};
use crate::view;
use argon2::Argon2;
use argon2::password_hash::rand_core::{OsRng, RngCore};
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tintype_model::access::{Action, Caller, Scope};
use tintype_model::refusal::Code;
use tintype_model::{Moment, Refusal, TokenId};
use tintype_store::{FIRST_USER, Page, Token, User};
use tintype_wire::rest;

/// Shortest password, in characters.
const PASSWORD_LEAST: usize = 12;
/// Longest password, in bytes: what argon2 works on is the caller's to choose, up to here.
const PASSWORD_MOST: usize = 1024;
/// How long a token that was signed in for is good: a day.
const SIGNED_IN_MS: i64 = 24 * 3600 * 1000;
/// How many attempts to sign in are looked at in [`WINDOW_MS`], for a name or an address.
const ATTEMPTS_MOST: u32 = 10;
/// How long attempts count: a minute.
const WINDOW_MS: i64 = 60_000;
/// How many names and addresses are remembered.
const REMEMBERED_MOST: usize = 10_000;

/// How often it is looked whether who follows something is still let in.
const LOOKED_AGAIN: Duration = Duration::from_secs(1);

/// Attempts to sign in, by name and by address.
#[derive(Debug, Default)]
pub(super) struct Attempts(Mutex<BTreeMap<String, (Moment, u32)>>);

impl Attempts {
    /// Counts an attempt; refuses one too many.
    fn count(&self, who: &str, at: Moment) -> Answer<()> {
        let mut all = self.0.lock().expect("no holder panics");
        if all.len() >= REMEMBERED_MOST {
            all.retain(|_, (since, _)| at.0 - since.0 < WINDOW_MS);
        }
        let entry = all.entry(who.to_owned()).or_insert((at, 0));
        if at.0 - entry.0.0 >= WINDOW_MS {
            *entry = (at, 0);
        }
        entry.1 += 1;
        if entry.1 <= ATTEMPTS_MOST {
            return Ok(());
        }
        Err(Refusal::new(Code::TooManyAttempts)
            .detail(format!("{ATTEMPTS_MOST} in a minute are looked at"))
            .hint("wait a minute"))
    }

    fn forget(&self, who: &str) {
        self.0.lock().expect("no holder panics").remove(who);
    }
}

impl App {
    /// Who shows this token.
    ///
    /// # Errors
    /// When nobody does.
    pub async fn authenticate(&self, secret: &str) -> Answer<Caller> {
        let mut unit = self.store.read().await.map_err(stored)?;
        let found = unit.token_by_hash(&hash(secret), self.now()).map_err(stored)?;
        let (token, user) = found.ok_or_else(|| {
            Refusal::new(Code::Unauthorized)
                .hint("send Authorization: Bearer and a token; tintype login makes one")
        })?;
        Ok(caller(&token, user))
    }

    /// Ends when a caller is no longer let in as it was: its token is revoked or over, or its user
    /// is gone or another. What goes on and on is let go of then.
    pub async fn until_shut_out(self: Arc<Self>, was: Caller) {
        loop {
            tokio::time::sleep(LOOKED_AGAIN).await;
            let found = async { self.store.read().await?.good_token(was.token, self.now()) };
            match found.await {
                Ok(found) => {
                    let is = found.map(|(token, user)| caller(&token, user));
                    if is.as_ref() != Some(&was) {
                        return;
                    }
                }
                Err(error) => tracing::warn!(%error, "nobody can be let in or shut out"),
            }
        }
    }

    /// Lets somebody in by password, with a token for a day.
    ///
    /// # Errors
    /// When user and password do not fit, or there were too many attempts.
    pub async fn sign_in(
        &self,
        from: Option<IpAddr>,
        sign_in: rest::SignIn,
    ) -> Answer<rest::MadeToken> {
        let (at, by_name) = (self.now(), format!("name {}", sign_in.user));
        if let Some(address) = from {
            self.attempts.count(&format!("address {address}"), at)?;
        }
        self.attempts.count(&by_name, at)?;
        let mut unit = self.store.read().await.map_err(stored)?;
        let user = unit.user_named(&sign_in.user).map_err(stored)?;
        drop(unit);
        let kept = user.as_ref().and_then(|user| user.password.clone());
        let fits = fits(sign_in.password, kept).await?;
        let Some(user) = user.filter(|_| fits) else {
            return Err(Refusal::new(Code::SignInFailed));
        };
        self.attempts.forget(&by_name);
        let expires_at = Some(Moment(at.0 + SIGNED_IN_MS));
        let token = self.token_for(&user, "signed in".to_owned(), Scope::All, expires_at);
        self.make(&user.name, &user, token).await
    }

    /// Makes a token for the caller, or for a user whom the caller manages.
    ///
    /// # Errors
    /// When the caller may not.
    pub async fn create_token(
        &self,
        caller: &Caller,
        new: rest::NewToken,
    ) -> Answer<rest::MadeToken> {
        caller.may_ever(Action::ManageTokens)?;
        let scope = match new.scope.as_deref() {
            None | Some("all") => Scope::All,
            Some("snapshots") => Scope::Snapshots,
            Some("read") => Scope::Read,
            Some(other) => {
                return Err(Refusal::new(Code::InvalidRequest)
                    .detail(format!("scope {other:?}"))
                    .hint("all, snapshots or read"));
            }
        };
        let expires_at = new.expires_at.as_deref().map(Moment::from_rfc3339).transpose()?;
        let mut unit = self.store.read().await.map_err(stored)?;
        let own = caller.user.to_string();
        let wanted = new.user.as_deref().unwrap_or(&own);
        let user = self.find_user(&mut unit, caller, Action::ManageTokens, wanted)?;
        drop(unit);
        if user.id != caller.user {
            caller.may_ever(Action::ManagePeople)?;
        }
        let token = self.token_for(&user, new.name.unwrap_or_default(), scope, expires_at);
        self.make(&caller.name, &user, token).await
    }

    async fn make(&self, by: &str, user: &User, token: Token) -> Answer<rest::MadeToken> {
        let secret = new_secret();
        let mut unit = self.store.write().await.map_err(stored)?;
        unit.add_token(&token, &hash(&secret)).map_err(stored)?;
        let detail = format!("{}: {}, {}", user.name, token.name, token.scope.as_str());
        let event = self.event(by, "token-created", Some(user.account), detail);
        unit.add_event(&event).map_err(stored)?;
        unit.commit().await.map_err(stored)?;
        self.spread_news();
        Ok(rest::MadeToken { token: view::token(&token), secret })
    }

    /// The first administrator's token for the server's own machine: the one that was left there,
    /// if it is still good, else a new one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn local_token(&self, left: Option<&str>) -> Answer<String> {
        if let Some(left) = left
            && self.authenticate(left).await.is_ok()
        {
            return Ok(left.to_owned());
        }
        let mut unit = self.store.read().await.map_err(stored)?;
        let first = unit.user(FIRST_USER).map_err(stored)?;
        let first = first.ok_or_else(|| Refusal::new(Code::UnknownUser).detail("admin"))?;
        drop(unit);
        let token = self.token_for(&first, "this machine".to_owned(), Scope::All, None);
        Ok(self.make("tintype", &first, token).await?.secret)
    }

    /// A page of the caller's tokens.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tokens(&self, caller: &Caller, page: &Page) -> Answer<rest::List<rest::Token>> {
        caller.may_ever(Action::ManageTokens)?;
        let mut unit = self.store.read().await.map_err(stored)?;
        let found = unit.tokens(caller.user, page).map_err(stored)?;
        let last = found.last().map(|t| (t.created_at, t.name.as_str(), t.id.0));
        let next = view::next(page, found.len(), last);
        Ok(rest::List { items: found.iter().map(view::token).collect(), next })
    }

    /// Revokes a token of the caller's, or of a user whom the caller manages.
    ///
    /// # Errors
    /// When there is none.
    pub async fn delete_token(&self, caller: &Caller, id: TokenId) -> Answer<()> {
        caller.may_ever(Action::ManageTokens)?;
        let unknown = || Refusal::new(Code::UnknownToken).detail(id.to_string());
        let mut unit = self.store.write().await.map_err(stored)?;
        let token = unit.token(id).map_err(stored)?.ok_or_else(unknown)?;
        let user = unit.user(token.user).map_err(stored)?.ok_or_else(unknown)?;
        if user.id != caller.user {
            // Whose tokens one does not manage, those are not there.
            caller.may(Action::ManagePeople, &user.home(), unknown).map_err(|_| unknown())?;
        }
        unit.remove_token(id).map_err(stored)?;
        let (account, detail) = (Some(user.account), format!("{}: {}", user.name, token.name));
        self.tell(&mut unit, caller, "token-revoked", account, detail)?;
        unit.commit().await.map_err(stored)?;
        self.spread_news();
        Ok(())
    }

    fn token_for(
        &self,
        user: &User,
        name: String,
        scope: Scope,
        expires_at: Option<Moment>,
    ) -> Token {
        let (id, created_at) = (TokenId(self.fresh()), self.now());
        Token { id, user: user.id, name, scope, created_at, expires_at }
    }
}

fn caller(token: &Token, user: User) -> Caller {
    Caller {
        user: user.id,
        token: token.id,
        name: user.name,
        role: user.role,
        scope: token.scope,
        account: user.account,
        lineage: user.lineage,
        once: None,
    }
}

/// 256 random bits.
fn new_secret() -> String {
    let mut bytes = [0; 32];
    OsRng.fill_bytes(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A token has so many random bits that one round of SHA-256 keeps it.
fn hash(secret: &str) -> String {
    Sha256::digest(secret.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A password as it is kept.
pub(super) async fn hash_password(password: String) -> Answer<String> {
    if password.chars().count() < PASSWORD_LEAST || password.len() > PASSWORD_MOST {
        return Err(Refusal::new(Code::InvalidRequest)
            .detail("the password is too short or too long")
            .hint("12 characters at least"));
    }
    let work = move || {
        let salt = SaltString::generate(&mut OsRng);
        Argon2::default().hash_password(password.as_bytes(), &salt).map(|hash| hash.to_string())
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(hash)) => Ok(hash),
        Ok(Err(error)) => Err(Refusal::new(Code::Internal).detail(error.to_string())),
        Err(error) => Err(Refusal::new(Code::Internal).detail(error.to_string())),
    }
}

/// Whether a password is the one that is kept. Takes as long when nothing is.
async fn fits(password: String, kept: Option<String>) -> Answer<bool> {
    let work = move || {
        let nobody = || {
            let salt = SaltString::generate(&mut OsRng);
            let _ = Argon2::default().hash_password(password.as_bytes(), &salt);
            false
        };
        match kept.as_deref().map(PasswordHash::new) {
            Some(Ok(kept)) => Argon2::default().verify_password(password.as_bytes(), &kept).is_ok(),
            Some(Err(_)) | None => nobody(),
        }
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Refusal::new(Code::Internal).detail(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::{ATTEMPTS_MOST, Attempts, WINDOW_MS};
    use tintype_model::Moment;

    #[test]
    fn attempts_are_limited_by_the_minute() {
        let attempts = Attempts::default();
        for _ in 0..ATTEMPTS_MOST {
            assert!(attempts.count("name a", Moment(0)).is_ok());
        }
        assert!(attempts.count("name a", Moment(0)).is_err());
        assert!(attempts.count("name b", Moment(0)).is_ok());
        assert!(attempts.count("name a", Moment(WINDOW_MS)).is_ok());
        attempts.forget("name b");
        assert!(attempts.count("name b", Moment(1)).is_ok());
    }
}
