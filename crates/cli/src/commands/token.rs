//! `tintype token` and `tintype login`

use super::list::all;
use crate::connect::{self, Server};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{line, print, table};
use clap::{Subcommand, ValueEnum};
use tintype_wire::client::Client;
use tintype_wire::rest::{List, MadeToken, NewToken, SignIn, Token};
use uuid::Uuid;

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum ScopeName {
    /// Everything its owner may do
    All,
    /// Reading, and work with snapshots
    Snapshots,
    /// Reading
    Read,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenVerb {
    /// Make a token; it is shown once
    Create {
        /// What it is for
        name: Option<String>,
        /// What it may be used for
        #[arg(long, value_enum, default_value = "all")]
        scope: ScopeName,
        /// When it shall end, such as 2027-01-31T00:00:00Z; never if not given
        #[arg(long)]
        expires: Option<String>,
        /// Whose it shall be, by name or id; your own if not given
        #[arg(long)]
        user: Option<String>,
    },
    /// List your tokens
    #[command(visible_alias = "ls")]
    List,
    /// Revoke a token
    #[command(aliases = ["rm", "revoke"])]
    Delete {
        /// Its id
        id: Uuid,
    },
}

pub(crate) async fn run(context: &Context, verb: TokenVerb) -> Result<(), Failure> {
    let client = &context.client;
    match verb {
        TokenVerb::Create { name, scope, expires, user } => {
            let scope = match scope {
                ScopeName::All => "all",
                ScopeName::Snapshots => "snapshots",
                ScopeName::Read => "read",
            };
            let scope = Some(scope.to_owned());
            let new = NewToken { name, scope, expires_at: expires, user };
            let made: MadeToken = client.post("/v1/tokens", &new).await?;
            print(context, &made, |made| made.secret.clone());
        }
        TokenVerb::List => {
            let tokens: List<Token> = all(context, "/v1/tokens?limit=500").await?;
            print(context, &tokens, |tokens| {
                let never = || "never".to_owned();
                let row = |token: &Token| {
                    let ends = token.expires_at.clone().unwrap_or_else(never);
                    vec![token.id.to_string(), token.name.clone(), token.scope.clone(), ends]
                };
                let rows: Vec<Vec<String>> = tokens.items.iter().map(row).collect();
                table(&["ID", "NAME", "SCOPE", "ENDS"], &rows)
            });
        }
        TokenVerb::Delete { id } => {
            client.remove(&format!("/v1/tokens/{id}")).await?;
            line(&format!("revoked {id}"));
        }
    }
    Ok(())
}

/// Signs in by password, and keeps the token where later commands find it.
pub(crate) async fn login(server: &Server, user: String) -> Result<(), Failure> {
    let access = server.find(false)?;
    let url = access.url.clone().unwrap_or_default();
    let password = crate::secret::ask(&format!("Password of {user} at {url}: "))?;
    let client = Client::new(&url, "", access.ca.as_deref())?;
    let made: MadeToken = client.post("/v1/sign-in", &SignIn { user, password }).await?;
    let kept = connect::keep(connect::Access { token: Some(made.secret), ..access })?;
    let ends = made.token.expires_at.unwrap_or_else(|| "never".to_owned());
    line(&format!("signed in at {url} until {ends}; kept in {}", kept.display()));
    Ok(())
}
