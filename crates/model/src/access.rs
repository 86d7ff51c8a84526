//! Who may do what (C1, R13): people live in accounts, accounts in a tree of domains, and each
//! person has a role. One question per request, asked before anything about the object is told.

use crate::id::{AccountId, DomainId, OperationId, TokenId, UserId};
use crate::refusal::{Code, Refusal};
use serde::{Deserialize, Serialize};

/// What a person is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Looks at what the account has.
    Viewer,
    /// Works with what the account has.
    User,
    /// Works with what a domain and those beneath it have.
    Operator,
    /// Decides who may do what in a domain and those beneath it.
    Administrator,
}

impl Role {
    /// Every role, the least first.
    pub const ALL: [Role; 4] = [Self::Viewer, Self::User, Self::Operator, Self::Administrator];

    /// As it stands on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::User => "user",
            Self::Operator => "operator",
            Self::Administrator => "administrator",
        }
    }
}

/// What a token may be used for; never for more than its owner may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Everything its owner may do.
    All,
    /// Reading, and work with snapshots.
    Snapshots,
    /// Reading.
    Read,
}

impl Scope {
    /// As it stands on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Snapshots => "snapshots",
            Self::Read => "read",
        }
    }
}

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident $least:ident $kind:ident $text:literal;)*) => {
        /// What can be done, and so be allowed or not.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Action {
            $(#[doc = $text] $name,)*
        }

        impl Action {
            /// Every action there is.
            pub const ALL: &[Action] = &[$(Action::$name),*];

            /// What it is, for people.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The least role that may.
            pub fn least(self) -> Role {
                match self { $(Self::$name => Role::$least,)* }
            }

            /// Which tokens are good for it.
            fn kind(self) -> Kind {
                match self { $(Self::$name => Kind::$kind,)* }
            }
        }
    };
}

/// Which tokens are good for an action.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Reading,
    Snapshots,
    Rest,
}

actions! {
    ReadVm Viewer Reading "see virtual machines, snapshots, operations, events";
    ReadProfiles Viewer Reading "see profiles";
    ReadPeople Viewer Reading "see the own domain, account and user, its usage and quota";
    ManageTokens Viewer Rest "make, list and revoke own tokens, change the own password";
    CreateVm User Rest "create virtual machines";
    CloneVm User Rest "clone virtual machines";
    PowerVm User Rest "start and stop";
    ConfigureVm User Rest "change hardware, disks and network cards";
    DeleteVm User Rest "delete virtual machines";
    UseConsole User Rest "use consoles";
    CreateSnapshot User Snapshots "take snapshots";
    RevertSnapshot User Snapshots "revert";
    EditSnapshot User Snapshots "change names, descriptions, expiry and protection of snapshots";
    DeleteSnapshot User Snapshots "delete snapshots";
    VerifySnapshot User Snapshots "verify snapshots";
    CancelOperation User Snapshots "cancel operations";
    SetVm Operator Rest "change a virtual machine's snapshot settings";
    ExportSnapshot Operator Rest "export snapshots on hosts (of the root domain only)";
    UseHost Operator Rest "use files and interfaces of hosts (of the root domain only)";
    ReadHosts Operator Reading "see hosts, pools and metrics (of the root domain only)";
    ManagePeople Administrator Rest "manage domains, accounts, users, quotas and their tokens";
    ForceLimit Administrator Rest "pass limits and quotas with --force";
    ManageProfiles Administrator Rest "manage profiles (of the root domain only)";
    ManageHosts Administrator Rest "look after hosts and the database (of the root domain only)";
}

impl Action {
    /// Whether it is about what everybody shares, which only the root domain decides on.
    pub fn is_shared(self) -> bool {
        matches!(
            self,
            Self::ExportSnapshot
                | Self::UseHost
                | Self::ReadHosts
                | Self::ManageProfiles
                | Self::ManageHosts
        )
    }
}

/// Where something belongs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Home {
    /// The account that has it; none for an account or domain as such.
    pub account: Option<AccountId>,
    /// The domains above it, the root first.
    pub lineage: Vec<DomainId>,
}

/// Who asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    /// Which user.
    pub user: UserId,
    /// By which token.
    pub token: TokenId,
    /// The user's name.
    pub name: String,
    /// What the user is.
    pub role: Role,
    /// What the token may be used for.
    pub scope: Scope,
    /// The account that the user belongs to.
    pub account: AccountId,
    /// The domains above that account, the root first.
    pub lineage: Vec<DomainId>,
    /// The id of the operation that this request is for, if it is one that may be repeated: what
    /// has been accepted once is not accepted again.
    pub once: Option<OperationId>,
}

/// What of all there is a caller sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// Everything.
    All,
    /// What is in this domain and those beneath it.
    Domain(DomainId),
    /// What this account has.
    Account(AccountId),
}

impl Caller {
    /// What the caller sees.
    pub fn reach(&self) -> Reach {
        match (self.role, self.lineage.as_slice()) {
            (Role::Viewer | Role::User, _) | (_, []) => Reach::Account(self.account),
            (Role::Operator | Role::Administrator, [_]) => Reach::All,
            (Role::Operator | Role::Administrator, [.., own]) => Reach::Domain(*own),
        }
    }

    /// Whether the caller sees what belongs there.
    pub fn reaches(&self, home: &Home) -> bool {
        match self.reach() {
            Reach::All => true,
            Reach::Domain(domain) => home.lineage.contains(&domain),
            Reach::Account(account) => home.account == Some(account),
        }
    }

    /// The one decision: whether the caller may do this to what belongs there. What the caller
    /// does not see is not there: then it is `missing` that is answered.
    ///
    /// # Errors
    /// The refusal.
    pub fn may(
        &self,
        action: Action,
        home: &Home,
        missing: impl FnOnce() -> Refusal,
    ) -> Result<(), Refusal> {
        if !self.reaches(home) {
            return Err(missing());
        }
        self.may_ever(action)
    }

    /// Whether the caller may do this to anything at all.
    ///
    /// # Errors
    /// The refusal.
    pub fn may_ever(&self, action: Action) -> Result<(), Refusal> {
        let no = |detail: String, hint: &str| {
            Err(Refusal::new(Code::NotAllowed).detail(detail).hint(hint))
        };
        let fits = match self.scope {
            Scope::All => true,
            Scope::Snapshots => action.kind() != Kind::Rest,
            Scope::Read => action.kind() == Kind::Reading,
        };
        if !fits {
            let detail = format!("the token is for {:?} only", self.scope.as_str());
            return no(detail, "use a token with a wider scope");
        }
        if self.role < action.least() {
            let (role, least) = (self.role.as_str(), action.least().as_str());
            let detail = format!("a {role} may not {}", action.as_str());
            return no(detail, &format!("ask somebody with the role {least}"));
        }
        if action.is_shared() && self.reach() != Reach::All {
            let detail = format!("only the root domain may {}", action.as_str());
            return no(detail, "ask somebody of the root domain");
        }
        Ok(())
    }
}

/// The table role × action, as the docs show it.
pub fn table() -> String {
    let mut text = String::from("| action |");
    for role in Role::ALL {
        text.push_str(&format!(" {} |", role.as_str()));
    }
    text.push_str(" token scopes |\n|---|---|---|---|---|---|\n");
    for &action in Action::ALL {
        text.push_str(&format!("| {} |", action.as_str()));
        for role in Role::ALL {
            text.push_str(if role >= action.least() { " yes |" } else { " |" });
        }
        text.push_str(match action.kind() {
            Kind::Reading => " all, snapshots, read |\n",
            Kind::Snapshots => " all, snapshots |\n",
            Kind::Rest => " all |\n",
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Action, Caller, Home, Role, Scope};
    use crate::id::{AccountId, DomainId, TokenId, UserId};
    use crate::refusal::{Code, Refusal};
    use uuid::Uuid;

    const ROOT: DomainId = DomainId(Uuid::from_u128(1));
    const SUB: DomainId = DomainId(Uuid::from_u128(2));
    const OTHER: DomainId = DomainId(Uuid::from_u128(3));
    const MINE: AccountId = AccountId(Uuid::from_u128(4));
    const THEIRS: AccountId = AccountId(Uuid::from_u128(5));

    fn caller(role: Role, scope: Scope, lineage: &[DomainId]) -> Caller {
        let (user, token) = (UserId(Uuid::nil()), TokenId(Uuid::nil()));
        Caller {
            user,
            token,
            name: "u".into(),
            role,
            scope,
            account: MINE,
            lineage: lineage.to_vec(),
            once: None,
        }
    }

    fn check(who: &Caller, action: Action, whose: (AccountId, &[DomainId]), no: Option<Code>) {
        let home = Home { account: Some(whose.0), lineage: whose.1.to_vec() };
        let answer = who.may(action, &home, || Refusal::new(Code::UnknownVm));
        assert_eq!(answer.err().map(|refusal| refusal.code), no, "{who:?} {action:?} {whose:?}");
    }

    /// R13: what somebody does not see is not there; what is seen may still be forbidden.
    #[test]
    fn domains_beneath_are_reached_and_others_are_not() {
        let (mine, theirs) = ((MINE, &[ROOT, SUB][..]), (THEIRS, &[ROOT, SUB][..]));
        let foreign = (THEIRS, &[ROOT, OTHER][..]);
        let user = caller(Role::User, Scope::All, &[ROOT, SUB]);
        check(&user, Action::CreateSnapshot, mine, None);
        check(&user, Action::ReadVm, theirs, Some(Code::UnknownVm));
        check(&user, Action::SetVm, mine, Some(Code::NotAllowed));
        let operator = caller(Role::Operator, Scope::All, &[ROOT, SUB]);
        check(&operator, Action::SetVm, theirs, None);
        check(&operator, Action::ReadVm, foreign, Some(Code::UnknownVm));
        check(&operator, Action::ForceLimit, theirs, Some(Code::NotAllowed));
        check(&operator, Action::ReadHosts, mine, Some(Code::NotAllowed));
        let administrator = caller(Role::Administrator, Scope::All, &[ROOT]);
        check(&administrator, Action::ForceLimit, foreign, None);
        check(&administrator, Action::ManageHosts, foreign, None);
        let viewer = caller(Role::Viewer, Scope::All, &[ROOT, SUB]);
        check(&viewer, Action::ReadVm, mine, None);
        check(&viewer, Action::PowerVm, mine, Some(Code::NotAllowed));
    }

    /// R13: a token never does more than its scope.
    #[test]
    fn a_scope_narrows() {
        let mine = (MINE, &[ROOT][..]);
        let snapshots = caller(Role::Administrator, Scope::Snapshots, &[ROOT]);
        check(&snapshots, Action::RevertSnapshot, mine, None);
        check(&snapshots, Action::DeleteVm, mine, Some(Code::NotAllowed));
        let read = caller(Role::Administrator, Scope::Read, &[ROOT]);
        check(&read, Action::ReadHosts, mine, None);
        check(&read, Action::DeleteSnapshot, mine, Some(Code::NotAllowed));
    }
}
