//! `tintype domain`, `tintype account` and `tintype user`

use super::escape;
use super::list::all;
use crate::context::Context;
use crate::failure::Failure;
use crate::limit::{self, Number};
use crate::output::{card, confirm, line, print, table};
use crate::size;
use clap::{Subcommand, ValueEnum};
use tintype_wire::rest::{
    Account, Domain, EditAccount, EditUser, Limit, List, NewAccount, NewDomain, NewUser, User,
};

#[derive(Debug, Subcommand)]
pub(crate) enum DomainVerb {
    /// Create a domain beneath another one
    Create {
        /// Its name
        name: String,
        /// The domain above, by name or id; your own if not given
        #[arg(long)]
        parent: Option<String>,
    },
    /// List domains
    #[command(visible_alias = "ls")]
    List,
    /// Show a domain
    Show {
        /// Name or id
        domain: String,
    },
    /// Delete a domain that is empty
    #[command(alias = "rm")]
    Delete {
        /// Name or id
        domain: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AccountVerb {
    /// Create an account
    Create {
        /// Its name
        name: String,
        /// The domain it shall be in, by name or id; your own if not given
        #[arg(long)]
        domain: Option<String>,
        /// How many snapshots it may have
        #[arg(long, value_parser = limit::number)]
        snapshot_quota: Option<Number>,
        /// How much it may have in snapshots, such as 100GiB
        #[arg(long, value_parser = limit::bytes)]
        bytes_quota: Option<Number>,
    },
    /// List accounts with quota and usage
    #[command(visible_alias = "ls")]
    List,
    /// Show an account with quota and usage
    Show {
        /// Name or id
        account: String,
    },
    /// Give an account another quota
    Set {
        /// Name or id
        account: String,
        /// How many snapshots it may have
        #[arg(long, value_parser = limit::number)]
        snapshot_quota: Option<Number>,
        /// How much it may have in snapshots, such as 100GiB
        #[arg(long, value_parser = limit::bytes)]
        bytes_quota: Option<Number>,
    },
    /// Delete an account that has no virtual machines, with its users
    #[command(alias = "rm")]
    Delete {
        /// Name or id
        account: String,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum RoleName {
    /// Looks at what the account has
    Viewer,
    /// Works with what the account has
    User,
    /// Works with what the domain and those beneath have
    Operator,
    /// Decides who may do what in the domain and those beneath
    Administrator,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserVerb {
    /// Create a user
    Create {
        /// Its name
        name: String,
        /// The account it shall belong to, by name or id; your own if not given
        #[arg(long)]
        account: Option<String>,
        /// What it may do
        #[arg(long, value_enum, default_value = "user")]
        role: RoleName,
        /// Ask for a password; without one it is given tokens
        #[arg(long)]
        password: bool,
    },
    /// List users
    #[command(visible_alias = "ls")]
    List,
    /// Show a user
    Show {
        /// Name or id
        user: String,
    },
    /// Change role or password
    Set {
        /// Name or id
        user: String,
        /// What it may do
        #[arg(long, value_enum)]
        role: Option<RoleName>,
        /// Ask for another password
        #[arg(long)]
        password: bool,
    },
    /// Delete a user with its tokens
    #[command(alias = "rm")]
    Delete {
        /// Name or id
        user: String,
    },
}

fn role(role: RoleName) -> String {
    match role {
        RoleName::Viewer => "viewer",
        RoleName::User => "user",
        RoleName::Operator => "operator",
        RoleName::Administrator => "administrator",
    }
    .to_owned()
}

pub(crate) async fn domains(context: &Context, verb: DomainVerb) -> Result<(), Failure> {
    let client = &context.client;
    match verb {
        DomainVerb::Create { name, parent } => {
            let made: Domain = client.post("/v1/domains", &NewDomain { name, parent }).await?;
            print(context, &made, show_domain);
        }
        DomainVerb::List => {
            let domains: List<Domain> = all(context, "/v1/domains?limit=500").await?;
            print(context, &domains, |domains| {
                let parent = |domain: &Domain| {
                    let above = domains.items.iter().find(|d| Some(d.id) == domain.parent);
                    above.map_or_else(|| "-".to_owned(), |above| above.name.clone())
                };
                let row = |d: &Domain| vec![d.name.clone(), parent(d), d.id.to_string()];
                table(&["NAME", "ABOVE", "ID"], &domains.items.iter().map(row).collect::<Vec<_>>())
            });
        }
        DomainVerb::Show { domain } => {
            let domain: Domain = client.get(&format!("/v1/domains/{}", escape(&domain))).await?;
            print(context, &domain, show_domain);
        }
        DomainVerb::Delete { domain } => {
            client.remove(&format!("/v1/domains/{}", escape(&domain))).await?;
            line(&format!("deleted domain {domain}"));
        }
    }
    Ok(())
}

fn show_domain(domain: &Domain) -> String {
    card(&[
        ("name", domain.name.clone()),
        ("id", domain.id.to_string()),
        ("above", domain.parent.map_or_else(|| "-".to_owned(), |id| id.to_string())),
        ("created", domain.created_at.clone()),
    ])
}

pub(crate) async fn accounts(context: &Context, verb: AccountVerb) -> Result<(), Failure> {
    let client = &context.client;
    match verb {
        AccountVerb::Create { name, domain, snapshot_quota, bytes_quota } => {
            let (snapshot_quota, bytes_quota) =
                (snapshot_quota.map(Limit::from), bytes_quota.map(Limit::from));
            let new = NewAccount { name, domain, snapshot_quota, bytes_quota };
            let made: Account = client.post("/v1/accounts", &new).await?;
            print(context, &made, show_account);
        }
        AccountVerb::List => {
            let accounts: List<Account> = all(context, "/v1/accounts?limit=500").await?;
            print(context, &accounts, |accounts| {
                let rows: Vec<Vec<String>> = accounts.items.iter().map(account_row).collect();
                table(&["NAME", "SNAPSHOTS", "OF", "IN SNAPSHOTS", "OF"], &rows)
            });
        }
        AccountVerb::Show { account } => {
            let account: Account =
                client.get(&format!("/v1/accounts/{}", escape(&account))).await?;
            print(context, &account, show_account);
        }
        AccountVerb::Set { account, snapshot_quota, bytes_quota } => {
            let edit = EditAccount {
                snapshot_quota: snapshot_quota.map(Limit::from),
                bytes_quota: bytes_quota.map(Limit::from),
            };
            let path = format!("/v1/accounts/{}", escape(&account));
            let account: Account = client.patch(&path, &edit).await?;
            print(context, &account, show_account);
        }
        AccountVerb::Delete { account } => {
            confirm(context, &format!("Account {account} goes for good, with its users."))?;
            client.remove(&format!("/v1/accounts/{}", escape(&account))).await?;
            line(&format!("deleted account {account}"));
        }
    }
    Ok(())
}

fn account_row(account: &Account) -> Vec<String> {
    vec![
        account.name.clone(),
        account.snapshots.to_string(),
        limit::show(account.snapshot_quota),
        size::show(account.bytes),
        limit::show_bytes(account.bytes_quota),
    ]
}

fn show_account(account: &Account) -> String {
    let of = |has: String, may: String| format!("{has} of {may}");
    card(&[
        ("name", account.name.clone()),
        ("id", account.id.to_string()),
        ("domain", account.domain.to_string()),
        ("snapshots", of(account.snapshots.to_string(), limit::show(account.snapshot_quota))),
        ("in snapshots", of(size::show(account.bytes), limit::show_bytes(account.bytes_quota))),
        ("created", account.created_at.clone()),
    ])
}

pub(crate) async fn users(context: &Context, verb: UserVerb) -> Result<(), Failure> {
    let client = &context.client;
    match verb {
        UserVerb::Create { name, account, role: wanted, password } => {
            let password = password.then(new_password).transpose()?;
            let new = NewUser { name, account, role: Some(role(wanted)), password };
            let made: User = client.post("/v1/users", &new).await?;
            print(context, &made, show_user);
        }
        UserVerb::List => {
            let users: List<User> = all(context, "/v1/users?limit=500").await?;
            print(context, &users, |users| {
                let row = |u: &User| vec![u.name.clone(), u.role.clone(), u.id.to_string()];
                table(&["NAME", "ROLE", "ID"], &users.items.iter().map(row).collect::<Vec<_>>())
            });
        }
        UserVerb::Show { user } => {
            let user: User = client.get(&format!("/v1/users/{}", escape(&user))).await?;
            print(context, &user, show_user);
        }
        UserVerb::Set { user, role: wanted, password } => {
            let password = password.then(new_password).transpose()?;
            let edit = EditUser { role: wanted.map(role), password };
            let path = format!("/v1/users/{}", escape(&user));
            let user: User = client.patch(&path, &edit).await?;
            print(context, &user, show_user);
        }
        UserVerb::Delete { user } => {
            client.remove(&format!("/v1/users/{}", escape(&user))).await?;
            line(&format!("deleted user {user}"));
        }
    }
    Ok(())
}

fn show_user(user: &User) -> String {
    card(&[
        ("name", user.name.clone()),
        ("id", user.id.to_string()),
        ("account", user.account.to_string()),
        ("role", user.role.clone()),
        ("password", if user.password { "yes" } else { "no" }.to_owned()),
        ("created", user.created_at.clone()),
    ])
}

fn new_password() -> Result<String, Failure> {
    let first = crate::secret::ask("New password: ")?;
    let again = crate::secret::ask("The same again: ")?;
    if first == again { Ok(first) } else { Err(Failure::plain("these are not the same", "")) }
}
