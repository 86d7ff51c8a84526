//! Signing in, tokens, and what those who may not see something are told.

mod told;

use anyhow::{Context, Result};
use axum::http::StatusCode;
use futures::StreamExt;
use serde_json::{Value, json};
use std::time::Duration;
use told::world::World;

const PASSWORD: &str = "correct horse battery";

async fn sign_in(world: &World, user: &str, password: &str) -> Result<(StatusCode, Value)> {
    let body = json!({ "user": user, "password": password });
    world.send("", "POST", "/v1/sign-in", Some(body)).await
}

/// R13: the first administrator has no password that somebody could guess; nobody signs in before
/// one is set; too short ones are not.
#[tokio::test]
async fn there_is_no_default_password() -> Result<()> {
    let world = World::new().await?;
    for guess in ["", "admin", "password", "tintype"] {
        let (status, no) = sign_in(&world, "admin", guess).await?;
        let said = (status, no["code"].as_str());
        assert_eq!(said, (StatusCode::UNAUTHORIZED, Some("sign-in-failed")), "{guess:?}");
    }
    let short = Some(json!({ "password": "short" }));
    let (status, _) = world.send(&world.admin, "PATCH", "/v1/users/admin", short).await?;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    world.must("PATCH", "/v1/users/admin", json!({ "password": PASSWORD })).await?;
    let (status, made) = sign_in(&world, "admin", PASSWORD).await?;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert!(made["expires_at"].is_string(), "what was signed in for ends");
    Ok(())
}

/// Wrong guesses are slowed down, and somebody else is not locked out by them.
#[tokio::test]
async fn guessing_is_slowed_down() -> Result<()> {
    let world = World::new().await?;
    for user in ["ann", "ben"] {
        let new = json!({ "name": user, "password": PASSWORD });
        world.must("POST", "/v1/users", new).await?;
    }
    let mut codes = Vec::new();
    for _ in 0..12 {
        codes.push(sign_in(&world, "ann", "wrong password!").await?.0);
    }
    assert_eq!(codes[9], StatusCode::UNAUTHORIZED);
    assert_eq!(codes[10], StatusCode::TOO_MANY_REQUESTS);
    let (status, _) = sign_in(&world, "ann", PASSWORD).await?;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "also with the right one");
    assert_eq!(sign_in(&world, "ben", PASSWORD).await?.0, StatusCode::CREATED);
    Ok(())
}

/// Tokens are shown once, end, are revoked, and do no more than their scope; another password ends
/// all but the one it was set with.
#[tokio::test]
async fn tokens_end_and_do_no_more_than_their_scope() -> Result<()> {
    let world = World::peopled().await?;
    let token = |scope: &'static str, expires: Option<String>| {
        let body = json!({ "name": scope, "scope": scope, "expires_at": expires });
        async { world.send(&world.tokens["user"], "POST", "/v1/tokens", Some(body)).await }
    };
    let (_, made) = token("snapshots", None).await?;
    let secret = made["secret"].as_str().context("it is shown once")?.to_owned();
    let vm = world.things["mine"].vm;
    let path = format!("/v1/vms/{vm}/snapshots");
    assert!(world.send(&secret, "POST", &path, None).await?.0.is_success());
    let (status, no) = world.send(&secret, "POST", &format!("/v1/vms/{vm}/start"), None).await?;
    assert_eq!((status, no["code"].as_str()), (StatusCode::FORBIDDEN, Some("not-allowed")));
    let (status, _) = world.send(&secret, "POST", "/v1/tokens", None).await?;
    assert_eq!(status, StatusCode::FORBIDDEN, "a narrow token makes no wider one");
    let (_, list) = world.send(&world.tokens["user"], "GET", "/v1/tokens", None).await?;
    assert!(!list.to_string().contains(&secret), "it is never shown again");
    assert!(list["items"][0]["secret"].is_null());
    let soon = Some("2020-01-01T00:00:00Z".to_owned());
    let (_, ended) = token("all", soon).await?;
    let ended = ended["secret"].as_str().context("it is shown")?;
    assert_eq!(world.send(ended, "GET", "/v1/vms", None).await?.0, StatusCode::UNAUTHORIZED);
    let id = made["id"].as_str().context("it has an id")?;
    let (status, _) =
        world.send(&world.tokens["user"], "DELETE", &format!("/v1/tokens/{id}"), None).await?;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert_eq!(world.send(&secret, "GET", "/v1/vms", None).await?.0, StatusCode::UNAUTHORIZED);
    let (_, other) = token("all", None).await?;
    let other = other["secret"].as_str().context("it is shown")?;
    let change = Some(json!({ "password": PASSWORD }));
    let own = &world.tokens["user"];
    let (status, said) = world.send(own, "PATCH", "/v1/users/user", change).await?;
    assert_eq!(status, StatusCode::OK, "{said}");
    assert_eq!(world.send(own, "GET", "/v1/vms", None).await?.0, StatusCode::OK);
    assert_eq!(world.send(other, "GET", "/v1/vms", None).await?.0, StatusCode::UNAUTHORIZED);
    Ok(())
}

/// Nobody makes more of himself, nor locks everybody out.
#[tokio::test]
async fn nobody_climbs_and_nobody_is_locked_out() -> Result<()> {
    let world = World::peopled().await?;
    let up = Some(json!({ "role": "administrator" }));
    for role in ["viewer", "user", "operator"] {
        let path = format!("/v1/users/{role}");
        let (status, _) = world.send(&world.tokens[role], "PATCH", &path, up.clone()).await?;
        assert_eq!(status, StatusCode::FORBIDDEN, "{role}");
    }
    let east = &world.tokens["administrator"];
    let (status, _) = world.send(east, "PATCH", "/v1/users/admin", up).await?;
    assert_eq!(status, StatusCode::NOT_FOUND, "the root's people are not there for east's");
    let new = Some(json!({ "name": "mole", "account": "foreign", "role": "administrator" }));
    let (status, _) = world.send(east, "POST", "/v1/users", new).await?;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let token = Some(json!({ "user": "foreign-user" }));
    let (status, _) = world.send(east, "POST", "/v1/tokens", token).await?;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let second = json!({ "name": "ops" });
    world.must("POST", "/v1/accounts", second).await?;
    let alice = json!({ "name": "alice", "account": "ops", "role": "administrator" });
    world.must("POST", "/v1/users", alice).await?;
    let made = world.must("POST", "/v1/tokens", json!({ "user": "alice" })).await?;
    let alice = made["secret"].as_str().context("it is shown")?;
    let (status, _) = world.send(alice, "DELETE", "/v1/accounts/admin", None).await?;
    assert_eq!(status, StatusCode::CONFLICT);
    let down = Some(json!({ "role": "viewer" }));
    let (status, _) = world.send(&world.admin, "PATCH", "/v1/users/admin", down).await?;
    assert_eq!(status, StatusCode::CONFLICT, "somebody has to be able to let others in");
    Ok(())
}

/// Whoever is not of the root domain takes no file and no interface of the host.
#[tokio::test]
async fn a_user_takes_nothing_of_the_host() -> Result<()> {
    let world = World::peopled().await?;
    for part in [
        json!({ "disks": [{ "file": "/etc/shadow" }] }),
        json!({ "kernel": "/boot/vmlinuz" }),
        json!({ "networks": ["tap:eth0"] }),
    ] {
        let mut new = json!({ "name": "new", "memory_bytes": 1 << 30 });
        for (key, value) in part.as_object().context("it is one")? {
            new[key] = value.clone();
        }
        for role in ["user", "operator", "administrator"] {
            let token = &world.tokens[role];
            let (status, no) = world.send(token, "POST", "/v1/vms", Some(new.clone())).await?;
            let said = (status, no["code"].as_str());
            assert_eq!(said, (StatusCode::FORBIDDEN, Some("not-allowed")), "{role}: {part}");
        }
        world.must("POST", "/v1/vms?wait=10s", new).await?;
        world.must("DELETE", "/v1/vms/new?wait=10s", json!({})).await?;
    }
    Ok(())
}

/// What is followed holds what the caller sees, and nothing else.
#[tokio::test]
async fn events_reach_whom_they_may() -> Result<()> {
    let world = World::peopled().await?;
    let app = &world.scene.app;
    let user = app.authenticate(&world.tokens["user"]).await?;
    let mut followed = Box::pin(app.follow_events(user, None, None).await?);
    for whose in ["foreign", "theirs", "mine"] {
        let path = format!("/v1/vms/{}/start?wait=10s", world.things[whose].vm);
        world.must("POST", &path, json!({})).await?;
    }
    let mine = Some(world.things["mine"].vm);
    for kind in ["start-vm-accepted", "start-vm-succeeded"] {
        let next = tokio::time::timeout(Duration::from_secs(10), followed.next()).await?;
        let event = next.context("it goes on")?;
        assert_eq!((event.kind.as_str(), event.vm), (kind, mine));
    }
    let more = tokio::time::timeout(Duration::from_millis(300), followed.next()).await;
    assert!(more.is_err(), "{more:?}");
    Ok(())
}

/// What is followed ends when the token by which it is followed does, or its user becomes another.
#[tokio::test]
async fn who_is_shut_out_follows_no_more() -> Result<()> {
    let world = World::peopled().await?;
    let app = &world.scene.app;
    for by in ["revoked", "another role"] {
        let new = json!({ "name": by.replace(' ', "-"), "role": "user", "account": "mine" });
        let user = world.must("POST", "/v1/users", new).await?;
        let made = world.must("POST", "/v1/tokens", json!({ "user": user["id"] })).await?;
        let secret = made["secret"].as_str().context("it is shown")?;
        let caller = app.authenticate(secret).await?;
        let mut out = Box::pin(std::sync::Arc::clone(app).until_shut_out(caller));
        let early = tokio::time::timeout(Duration::from_millis(1500), &mut out).await;
        assert!(early.is_err(), "{by}: it is let in as before");
        match by {
            "revoked" => {
                let id = made["id"].as_str().context("it has one")?;
                world.must("DELETE", &format!("/v1/tokens/{id}"), json!({})).await?
            }
            _ => {
                let path = format!("/v1/users/{}", user["id"].as_str().context("it has one")?);
                world.must("PATCH", &path, json!({ "role": "viewer" })).await?
            }
        };
        tokio::time::timeout(Duration::from_secs(10), out).await.context(by)?;
    }
    Ok(())
}

/// A name is unique in its account; who sees several is asked for the id; one's own comes first.
#[tokio::test]
async fn a_name_means_ones_own_first() -> Result<()> {
    let world = World::peopled().await?;
    for account in ["mine", "theirs", "below"] {
        let new = json!({ "name": "web", "memory_bytes": 1 << 30, "account": account });
        world.must("POST", "/v1/vms?wait=10s", new).await?;
    }
    let operator = &world.tokens["operator"];
    let (_, own) = world.send(operator, "GET", "/v1/vms/web", None).await?;
    assert_eq!(own["account"], "mine");
    let (status, no) = world.send(&world.admin, "GET", "/v1/vms/web", None).await?;
    let said = (status, no["code"].as_str());
    assert_eq!(said, (StatusCode::CONFLICT, Some("name-ambiguous")));
    assert_eq!(no["blocking"].as_array().map(Vec::len), Some(3));
    Ok(())
}

/// Posts with an Idempotency-Key, always the same.
async fn post_once(world: &World, path: &str, body: &Value) -> Result<(StatusCode, Value)> {
    let request = axum::http::Request::builder()
        .method("POST")
        .uri(path)
        .header("host", "127.0.0.1:7420")
        .header("authorization", format!("Bearer {}", world.admin))
        .header("idempotency-key", "the same")
        .body(axum::body::Body::from(body.to_string()))?;
    let response = tower::ServiceExt::oneshot(world.router.clone(), request).await?;
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await?;
    Ok((status, serde_json::from_slice(&body)?))
}

/// What holds a secret is not remembered for a request that is repeated.
#[tokio::test]
async fn an_answer_with_a_secret_is_not_kept() -> Result<()> {
    let world = World::new().await?;
    let mut secrets = Vec::new();
    for _ in 0..2 {
        let (_, made) = post_once(&world, "/v1/tokens", &json!({})).await?;
        secrets.push(made["secret"].as_str().context("it is shown")?.to_owned());
    }
    assert_ne!(secrets[0], secrets[1]);
    Ok(())
}

/// What dies between accepting and keeping the answer accepts nothing twice: it is as if the answer
/// had not been kept. Nor do many that ask the same at once.
#[tokio::test]
async fn a_repeated_request_is_accepted_once_whenever_it_is_repeated() -> Result<()> {
    let world = World::peopled().await?;
    let new = json!({ "name": "new", "memory_bytes": 1 << 30 });
    let (_, first) = post_once(&world, "/v1/vms?wait=10s", &new).await?;
    let database = rusqlite::Connection::open(world.scene.data.path().join("tintype.db"))?;
    let kept = database.execute("DELETE FROM idempotency", [])?;
    assert_eq!(kept, 1);
    let (status, again) = post_once(&world, "/v1/vms?wait=10s", &new).await?;
    assert_eq!((status, &again["id"]), (StatusCode::OK, &first["id"]));

    let path = format!("/v1/vms/{}/snapshots?queue=true", world.things["mine"].vm);
    let body = json!({ "kind": "disk" });
    let asked = (0..8).map(|_| post_once(&world, &path, &body));
    let mut accepted = std::collections::BTreeSet::new();
    for answer in futures::future::join_all(asked).await {
        match answer? {
            (StatusCode::ACCEPTED, operation) => {
                accepted.insert(operation["id"].to_string());
            }
            (StatusCode::CONFLICT, no) => assert_eq!(no["code"], "key-reused"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(accepted.len(), 1, "{accepted:?}");
    Ok(())
}
