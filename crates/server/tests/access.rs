//! Who may do what, asked of every route there is: route × role × whose the object is. The table
//! here is the test's own; a route of the OpenAPI document that it does not know fails it.

mod told;

use anyhow::{Context, Result};
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use told::world::{ROLES, World};

/// What a route is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum About {
    /// Something that belongs to an account.
    Thing,
    /// A domain.
    Domain,
    /// A token.
    Token,
    /// A list that holds only what the caller sees, or something new in the caller's own account.
    Own,
    /// What everybody shares, which the root domain decides on.
    Shared,
    /// Nothing in particular; anybody who is known.
    Anybody,
    /// Nothing; nobody need be known.
    Open,
}

use About::{Anybody, Domain, Open, Own, Shared, Thing, Token};

/// Every route: method, address, what it is about, the least role.
const ROUTES: &[(&str, &str, About, &str)] = &[
    ("GET", "/v1/vms", Own, "viewer"),
    ("POST", "/v1/vms", Own, "user"),
    ("GET", "/v1/vms/{vm}", Thing, "viewer"),
    ("PATCH", "/v1/vms/{vm}", Thing, "user"),
    ("DELETE", "/v1/vms/{vm}", Thing, "user"),
    ("POST", "/v1/vms/{vm}/start", Thing, "user"),
    ("POST", "/v1/vms/{vm}/stop", Thing, "user"),
    ("POST", "/v1/vms/{vm}/clone", Thing, "user"),
    ("GET", "/v1/vms/{vm}/disks", Thing, "viewer"),
    ("POST", "/v1/vms/{vm}/disks", Thing, "user"),
    ("PATCH", "/v1/vms/{vm}/disks/{disk}", Thing, "user"),
    ("DELETE", "/v1/vms/{vm}/disks/{disk}", Thing, "user"),
    ("GET", "/v1/vms/{vm}/console", Thing, "user"),
    ("POST", "/v1/vms/{vm}/console", Thing, "user"),
    ("GET", "/v1/vms/{vm}/snapshots", Thing, "viewer"),
    ("POST", "/v1/vms/{vm}/snapshots", Thing, "user"),
    ("DELETE", "/v1/vms/{vm}/snapshots", Thing, "user"),
    ("GET", "/v1/vms/{vm}/tree", Thing, "viewer"),
    ("GET", "/v1/snapshots", Own, "viewer"),
    ("GET", "/v1/snapshots/{id}", Thing, "viewer"),
    ("PATCH", "/v1/snapshots/{id}", Thing, "user"),
    ("DELETE", "/v1/snapshots/{id}", Thing, "user"),
    ("POST", "/v1/snapshots/{id}/revert", Thing, "user"),
    ("POST", "/v1/snapshots/{id}/verify", Thing, "user"),
    ("POST", "/v1/snapshots/{id}/export", Shared, "operator"),
    ("GET", "/v1/operations", Own, "viewer"),
    ("GET", "/v1/operations/{id}", Thing, "viewer"),
    ("POST", "/v1/operations/{id}/cancel", Thing, "user"),
    ("GET", "/v1/events", Own, "viewer"),
    ("GET", "/v1/domains", Own, "viewer"),
    ("POST", "/v1/domains", Own, "administrator"),
    ("GET", "/v1/domains/{id}", Domain, "viewer"),
    ("DELETE", "/v1/domains/{id}", Domain, "administrator"),
    ("GET", "/v1/accounts", Own, "viewer"),
    ("POST", "/v1/accounts", Own, "administrator"),
    ("GET", "/v1/accounts/{id}", Thing, "viewer"),
    ("PATCH", "/v1/accounts/{id}", Thing, "administrator"),
    ("DELETE", "/v1/accounts/{id}", Thing, "administrator"),
    ("GET", "/v1/users", Own, "viewer"),
    ("POST", "/v1/users", Own, "administrator"),
    ("GET", "/v1/users/{id}", Thing, "viewer"),
    ("PATCH", "/v1/users/{id}", Thing, "administrator"),
    ("DELETE", "/v1/users/{id}", Thing, "administrator"),
    ("GET", "/v1/tokens", Own, "viewer"),
    ("POST", "/v1/tokens", Own, "viewer"),
    ("DELETE", "/v1/tokens/{id}", Token, "viewer"),
    ("POST", "/v1/sign-in", Open, "viewer"),
    ("GET", "/v1/profiles", Anybody, "viewer"),
    ("GET", "/v1/profiles/{id}", Anybody, "viewer"),
    ("POST", "/v1/profiles", Shared, "administrator"),
    ("PATCH", "/v1/profiles/{id}", Shared, "administrator"),
    ("DELETE", "/v1/profiles/{id}", Shared, "administrator"),
    ("GET", "/v1/hosts", Shared, "operator"),
    ("GET", "/v1/hosts/{id}", Shared, "operator"),
    ("PATCH", "/v1/hosts/{id}", Shared, "administrator"),
    ("POST", "/v1/hosts/{id}/check", Shared, "administrator"),
    ("POST", "/v1/hosts/{id}/repair", Shared, "administrator"),
    ("POST", "/v1/hosts/{id}/adopt", Shared, "administrator"),
    ("GET", "/v1/hypervisors", Shared, "operator"),
    ("PATCH", "/v1/hypervisors/{kind}", Shared, "administrator"),
    ("GET", "/v1/pools", Shared, "operator"),
    ("GET", "/v1/pools/{id}", Shared, "operator"),
    ("PATCH", "/v1/pools/{id}", Shared, "administrator"),
    ("GET", "/v1/database", Shared, "administrator"),
    ("GET", "/metrics", Shared, "operator"),
    ("GET", "/health", Open, "viewer"),
    ("GET", "/openapi.json", Anybody, "viewer"),
];

/// Whose an object is, seen from the account `mine`.
const WHOSE: [&str; 4] = ["mine", "theirs", "below", "foreign"];

fn rank(role: &str) -> usize {
    ROLES.iter().position(|known| *known == role).expect("it is a role")
}

/// Whether a role in `mine` sees what belongs there.
fn sees(role: &str, whose: &str) -> bool {
    whose == "mine" || rank(role) >= rank("operator") && whose != "foreign"
}

/// A body that the route understands.
fn body(method: &str, path: &str) -> Option<Value> {
    let body = match (method, path) {
        ("POST", "/v1/vms") => json!({ "name": "new", "memory_bytes": 1 << 30 }),
        ("PATCH", "/v1/vms/{vm}") => json!({ "vcpus": 2 }),
        ("POST", "/v1/vms/{vm}/clone") => json!({ "name": "cloned" }),
        ("POST", "/v1/vms/{vm}/disks") => json!({ "size_bytes": 1 << 20 }),
        ("PATCH", "/v1/vms/{vm}/disks/{disk}") => json!({ "size_bytes": 2_u64 << 30 }),
        ("PATCH", "/v1/snapshots/{id}") => json!({ "description": "new" }),
        ("POST", "/v1/domains" | "/v1/accounts" | "/v1/users" | "/v1/profiles") => {
            json!({ "name": "new" })
        }
        ("PATCH", "/v1/accounts/{id}") => json!({ "snapshot_quota": 5 }),
        ("PATCH", "/v1/users/{id}") => json!({ "role": "user" }),
        ("POST", "/v1/sign-in") => json!({ "user": "nobody", "password": "nothing" }),
        ("PATCH", "/v1/hosts/{id}" | "/v1/hypervisors/{kind}") => {
            json!({ "snapshots_enabled": true })
        }
        ("PATCH", "/v1/pools/{id}") => json!({ "warn_at": [80] }),
        ("POST" | "PATCH", _) => json!({}),
        _ => return None,
    };
    Some(body)
}

/// The address with an object of `whose` in it.
fn address(world: &World, role: &str, path: &str, whose: &str) -> Result<String> {
    let thing = world.things.get(whose).context("it is settled")?;
    let id = match path.split('/').nth(2) {
        Some("snapshots") => thing.snapshot.to_string(),
        Some("operations") => thing.operation.to_string(),
        Some("accounts") => thing.account.to_string(),
        Some("users") => thing.user.to_string(),
        Some("domains") => thing.domain.to_string(),
        Some("profiles") => "default".to_owned(),
        Some("hosts") => "host".to_owned(),
        Some("tokens") => world.token_ids[role].to_string(),
        _ => "default".to_owned(),
    };
    let path = path.replace("{vm}", &thing.vm.to_string()).replace("{disk}", "vda");
    Ok(path.replace("{id}", &id).replace("{kind}", "told"))
}

/// What has to come of a request by somebody of `mine`: `None` is whatever the rules say, once
/// access is granted.
fn expected(about: About, least: &str, role: &str, whose: &str) -> Option<StatusCode> {
    let allowed = rank(role) >= rank(least);
    match about {
        Open | Token => None,
        Anybody => Some(StatusCode::OK),
        Shared => Some(StatusCode::FORBIDDEN),
        Domain if whose != "mine" && !sees(role, whose) && whose != "theirs" => {
            Some(StatusCode::NOT_FOUND)
        }
        Thing if !sees(role, whose) => Some(StatusCode::NOT_FOUND),
        Thing | Domain | Own if !allowed => Some(StatusCode::FORBIDDEN),
        Thing | Domain | Own => None,
    }
}

fn granted(status: StatusCode) -> bool {
    let refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::NOT_FOUND];
    !refused.contains(&status) && !status.is_server_error()
}

/// C1, R13: a route that is new has to be thought about here.
#[test]
fn every_route_is_in_the_table() -> Result<()> {
    let document: Value = serde_json::from_str(&tintype_server::openapi_json())?;
    let mut documented = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().context("it has paths")? {
        for method in methods.as_object().context("they have methods")?.keys() {
            documented.insert((method.to_uppercase(), path.clone()));
        }
    }
    let known: BTreeSet<(String, String)> =
        ROUTES.iter().map(|(m, p, ..)| ((*m).to_owned(), (*p).to_owned())).collect();
    assert_eq!(known, documented);
    Ok(())
}

/// C1, E19, R13: route × role × own, other, sub-domain and foreign object. What is refused changes
/// nothing; what is granted is tried in a world of its own.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_passes_the_table() -> Result<()> {
    let shared = World::peopled().await?;
    let mut worlds = 0;
    for (method, path, about, least) in ROUTES {
        for role in ROLES {
            let of: &[&str] = if matches!(about, Thing | Domain) { &WHOSE } else { &["mine"] };
            for whose in of {
                let said = expected(*about, least, role, whose);
                let fresh = said.is_none() && *method != "GET" && *about != Open;
                worlds += usize::from(fresh);
                let own = if fresh { Some(World::peopled().await?) } else { None };
                let world = own.as_ref().unwrap_or(&shared);
                let address = address(world, role, path, whose)?;
                let token = &world.tokens[role];
                let (status, answer) =
                    world.send(token, method, &address, body(method, path)).await?;
                let what = format!("{role}: {method} {path} of {whose}: {status} {answer}");
                match said {
                    Some(said) => assert_eq!(status, said, "{what}"),
                    None if *path == "/v1/sign-in" => {
                        assert_eq!(answer["code"], "sign-in-failed", "{what}");
                    }
                    None => assert!(granted(status), "{what}"),
                }
            }
        }
    }
    assert!(worlds > 50, "so much was granted: {worlds}");
    Ok(())
}

/// Without a token there is nothing but the door.
#[tokio::test]
async fn without_a_token_there_is_only_the_door() -> Result<()> {
    let world = World::peopled().await?;
    for (method, path, about, _) in ROUTES.iter().filter(|(_, _, about, _)| *about != Open) {
        let address = address(&world, "user", path, "mine")?;
        let (status, answer) = world.send("wrong", method, &address, body(method, path)).await?;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{method} {path} {about:?} {answer}");
    }
    Ok(())
}

/// R13: the root domain's people may do with what is shared what their role allows.
#[tokio::test]
async fn what_is_shared_is_the_root_domains() -> Result<()> {
    let world = World::peopled().await?;
    for role in ROLES {
        let name = format!("root-{role}");
        world.must("POST", "/v1/users", json!({ "name": name, "role": role })).await?;
        let made = world.must("POST", "/v1/tokens", json!({ "user": name })).await?;
        let token = made["secret"].as_str().context("it is shown")?.to_owned();
        for (method, path, _, least) in ROUTES.iter().filter(|(_, _, about, _)| *about == Shared) {
            let address = address(&world, role, path, "mine")?;
            let (status, answer) = world.send(&token, method, &address, body(method, path)).await?;
            let what = format!("{role}: {method} {path}: {status} {answer}");
            if rank(role) < rank(least) {
                assert_eq!(status, StatusCode::FORBIDDEN, "{what}");
            } else {
                assert!(granted(status), "{what}");
            }
        }
    }
    Ok(())
}

/// E19, R13: lists and counts hold what the caller may read, and nothing of it twice.
#[tokio::test]
async fn lists_hold_what_the_caller_sees() -> Result<()> {
    let world = World::peopled().await?;
    let ids = |list: &Value, field: &str| -> BTreeSet<String> {
        let items = list["items"].as_array().cloned().unwrap_or_default();
        items.iter().filter_map(|item| item[field].as_str().map(str::to_owned)).collect()
    };
    for role in ROLES {
        let seen: Vec<&str> = WHOSE.iter().copied().filter(|&whose| sees(role, whose)).collect();
        let vms: BTreeSet<String> =
            seen.iter().map(|whose| world.things[whose].vm.to_string()).collect();
        let token = &world.tokens[role];
        for (path, field) in [
            ("/v1/vms", "id"),
            ("/v1/snapshots", "vm"),
            ("/v1/operations", "vm"),
            ("/v1/snapshots?keyword=one", "vm"),
            ("/v1/snapshots?kind=disk&sort=-name", "vm"),
        ] {
            let (_, list) = world.send(token, "GET", path, None).await?;
            assert_eq!(ids(&list, field), vms, "{role}: {path}");
        }
        let (_, accounts) = world.send(token, "GET", "/v1/accounts", None).await?;
        let expected: BTreeSet<String> =
            seen.iter().map(|whose| world.things[whose].account.to_string()).collect();
        assert_eq!(ids(&accounts, "id"), expected, "{role}");
        let (_, events) = world.send(token, "GET", "/v1/events?limit=1000", None).await?;
        assert!(ids(&events, "account").is_subset(&expected), "{role}");
        assert_eq!(ids(&events, "vm"), vms, "{role}");
    }
    Ok(())
}
