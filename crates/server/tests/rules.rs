//! The rules around snapshots as requests meet them: settings, limits, quotas, lines, cancelling,
//! expiry, plans.

mod told;

use anyhow::{Context, Result};
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use tintype_model::refusal::Code;
use tintype_model::settings::Limit;
use tintype_model::{OperationId, SnapshotId};
use tintype_server::app::{Edited, How};
use tintype_wire::rest;
use told::world::World;
use told::{Scene, ToldAgent, code, new_vm};

fn named(name: &str) -> rest::NewSnapshot {
    rest::NewSnapshot { name: Some(name.to_owned()), ..Default::default() }
}

async fn items(world: &World, token: &str, path: &str) -> Result<Vec<Value>> {
    let (status, list) = world.send(token, "GET", path, None).await?;
    anyhow::ensure!(status == StatusCode::OK, "{path}: {status} {list}");
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

/// C20, C23, C24, C25, R2: a profile gives new machines their settings; changing it or them touches
/// nothing that exists, and a lowered limit keeps what is there.
#[tokio::test]
async fn settings_come_from_profiles_and_touch_nothing_that_exists() -> Result<()> {
    let world = World::new().await?;
    let new = json!({ "name": "lab", "snapshot-limit": 5, "memory_allowed": true });
    world.must("POST", "/v1/profiles", new).await?;
    for (name, profile) in [("plain", None), ("lab-vm", Some("lab"))] {
        let new = json!({ "name": name, "memory_bytes": 1 << 30, "profile": profile });
        world.must("POST", "/v1/vms?wait=10s", new).await?;
    }
    let shown = |name: &str| format!("/v1/vms/{name}");
    let plain = world.must("GET", &shown("plain"), json!({})).await?;
    assert_eq!(
        (plain["snapshot_limit"].as_u64(), &plain["memory_allowed"]),
        (Some(3), &json!(false))
    );
    let lab = world.must("GET", &shown("lab-vm"), json!({})).await?;
    assert_eq!((lab["snapshot_limit"].as_u64(), &lab["memory_allowed"]), (Some(5), &json!(true)));
    for name in ["one", "two", "three"] {
        world.must("POST", "/v1/vms/plain/snapshots?wait=10s", json!({ "name": name })).await?;
    }
    world.must("PATCH", "/v1/profiles/default", json!({ "snapshot_limit": 1 })).await?;
    world.must("PATCH", "/v1/profiles/lab", json!({ "memory_allowed": false })).await?;
    let plain = world.must("GET", &shown("plain"), json!({})).await?;
    assert_eq!(plain["snapshot_limit"].as_u64(), Some(3), "what exists keeps what it has");
    world.must("PATCH", &shown("plain"), json!({ "snapshot_limit": 2 })).await?;
    let plain = world.must("GET", &shown("plain"), json!({})).await?;
    assert_eq!(plain["snapshots"].as_u64(), Some(3), "a lowered limit keeps what is there");
    let path = "/v1/vms/plain/snapshots";
    let (status, no) = world.send(&world.admin, "POST", path, Some(json!({}))).await?;
    assert_eq!(
        (status, no["code"].as_str()),
        (StatusCode::CONFLICT, Some("snapshot-limit-reached"))
    );
    assert_eq!(no["blocking"].as_array().map(Vec::len), Some(3), "the oldest are named");
    world.must("PATCH", &shown("plain"), json!({ "snapshot_limit": "unlimited" })).await?;
    world.must("POST", "/v1/vms/plain/snapshots?wait=10s", json!({})).await?;
    let (status, _) = world.send(&world.admin, "DELETE", "/v1/profiles/default", None).await?;
    assert_eq!(status, StatusCode::CONFLICT);
    Ok(())
}

/// A38, R2: the hypervisor's cap binds the administrator of the first run as everybody; `--force`
/// passes it, and the record says so; who may not force is refused.
#[tokio::test]
async fn limits_bind_everybody_unless_an_administrator_forces() -> Result<()> {
    let scene = Scene::new(ToldAgent { capped: Limit::Most(2), ..ToldAgent::default() }).await?;
    let unlimited = Some(rest::Limit::Unlimited(rest::Unlimited::Unlimited));
    let new = rest::NewVm { snapshot_limit: unlimited, ..new_vm("web") };
    let accepted = scene.app.create_vm(&scene.who, How::default(), new).await?;
    scene.ended(accepted).await?;
    for name in ["one", "two"] {
        scene.snapshot(name, "disk").await?;
    }
    let three = scene.app.create_snapshot(&scene.who, How::default(), "web", named("three")).await;
    assert_eq!(code(three), Code::SnapshotLimitReached);
    let how = How { force: true, ..How::default() };
    let forced = scene.app.create_snapshot(&scene.who, how, "web", named("three")).await?;
    assert_eq!(scene.ended(forced).await?.state, "succeeded");
    let events = scene.app.events(&scene.who, Some("web"), None, None).await?;
    let recorded = events.items.iter().any(|event| event.detail == "with --force");
    assert!(recorded, "{events:?}");
    let mut operator = scene.who.clone();
    operator.role = tintype_model::access::Role::Operator;
    let no = scene.app.create_snapshot(&operator, how, "web", named("four")).await;
    assert_eq!(code(no), Code::NotAllowed);
    Ok(())
}

/// E13, beyond it: of a hundred that come at once, as many get through as there is room for; what
/// is shown before the click is what is enforced; deleting makes room.
#[tokio::test(flavor = "multi_thread")]
async fn a_quota_holds_under_a_hundred_requests_at_once() -> Result<()> {
    let world = World::new().await?;
    world.must("POST", "/v1/accounts", json!({ "name": "lab", "snapshot_quota": 7 })).await?;
    for n in 0..100 {
        let new = json!({ "name": format!("vm{n}"), "memory_bytes": 1 << 30, "account": "lab" });
        world.must("POST", "/v1/vms?wait=30s", new).await?;
    }
    let create = |n: usize| {
        let (router, admin) = (world.router.clone(), world.admin.clone());
        async move {
            let request = axum::http::Request::builder()
                .method("POST")
                .uri(format!("/v1/vms/vm{n}/snapshots"))
                .header("host", "127.0.0.1:7420")
                .header("authorization", format!("Bearer {admin}"))
                .body(axum::body::Body::empty());
            let request = request.expect("it is a request");
            tower::ServiceExt::oneshot(router, request).await.expect("it answers").status()
        }
    };
    let all: Vec<_> = (0..100).map(|n| tokio::spawn(create(n))).collect();
    let mut accepted = 0;
    for one in all {
        let status = one.await?;
        accepted += usize::from(status == StatusCode::ACCEPTED);
        assert!([StatusCode::ACCEPTED, StatusCode::CONFLICT].contains(&status), "{status}");
    }
    assert_eq!(accepted, 7);
    let account = world.must("GET", "/v1/accounts/lab", json!({})).await?;
    assert_eq!(
        (account["snapshots"].as_u64(), account["snapshot_quota"].as_u64()),
        (Some(7), Some(7))
    );
    let taken = items(&world, &world.admin, "/v1/snapshots?account=lab").await?;
    assert_eq!(taken.len(), 7);
    let id = taken[0]["id"].as_str().context("it has an id")?;
    tokio::time::sleep(Duration::from_millis(200)).await;
    world.must("DELETE", &format!("/v1/snapshots/{id}?wait=10s"), json!({})).await?;
    let account = world.must("GET", "/v1/accounts/lab", json!({})).await?;
    assert_eq!(account["snapshots"].as_u64(), Some(6));
    Ok(())
}

/// E13, beyond it: a quota of bytes counts what a create reserves.
#[tokio::test]
async fn a_quota_of_bytes_reserves_the_memory() -> Result<()> {
    let world = World::new().await?;
    let quota = json!({ "name": "lab", "bytes_quota": 1_u64 << 30 });
    world.must("POST", "/v1/accounts", quota).await?;
    let new = json!({ "name": "vm", "memory_bytes": 1 << 30, "account": "lab" });
    world.must("POST", "/v1/vms?wait=10s", new).await?;
    world.must("POST", "/v1/vms/vm/start?wait=10s", json!({})).await?;
    let path = "/v1/vms/vm/snapshots?wait=10s";
    let memory = json!({ "kind": "disk-and-memory" });
    let (_, no) = world.send(&world.admin, "POST", path, Some(memory.clone())).await?;
    assert_eq!(no["code"], "quota-reached", "{no}");
    world.must("POST", path, json!({})).await?;
    let more = json!({ "bytes_quota": 4_u64 << 30 });
    world.must("PATCH", "/v1/accounts/lab", more).await?;
    world.must("POST", path, memory).await?;
    Ok(())
}

/// C1, C19, C21, E30, R13: the settings of a machine bind users, over HTTP as in the model;
/// snapshots switched off for a host or its kind are not taken, and what exists stays usable.
#[tokio::test]
async fn settings_and_switches_bind_whom_they_shall() -> Result<()> {
    let world = World::peopled().await?;
    let thing = &world.things["mine"];
    let (vm, snapshot) = (format!("/v1/vms/{}", thing.vm), thing.snapshot);
    let user = &world.tokens["user"];
    let create = format!("{vm}/snapshots?wait=10s");
    let memory = Some(json!({ "kind": "disk-and-memory" }));
    world.must("POST", &format!("{vm}/start?wait=10s"), json!({})).await?;
    let (_, no) = world.send(user, "POST", &create, memory).await?;
    assert_eq!(no["code"], "memory-not-allowed");
    world.must("PATCH", &vm, json!({ "snapshots_allowed": false })).await?;
    for (method, path) in [
        ("POST", create.clone()),
        ("POST", format!("/v1/snapshots/{snapshot}/revert")),
        ("PATCH", format!("/v1/snapshots/{snapshot}")),
        ("DELETE", format!("/v1/snapshots/{snapshot}")),
    ] {
        let (status, no) = world.send(user, method, &path, Some(json!({}))).await?;
        let said = (status, no["code"].as_str());
        assert_eq!(said, (StatusCode::FORBIDDEN, Some("snapshots-not-allowed")), "{method} {path}");
    }
    let operator = &world.tokens["operator"];
    let (status, _) = world.send(operator, "POST", &create, Some(json!({}))).await?;
    assert_eq!(status, StatusCode::OK);
    for switch in ["/v1/hosts/host", "/v1/hypervisors/told"] {
        world.must("PATCH", switch, json!({ "snapshots-enabled": false })).await?;
        let (_, no) = world.send(operator, "POST", &create, Some(json!({}))).await?;
        assert_eq!(no["code"], "snapshots-disabled", "{switch}");
        let edit = json!({ "description": switch });
        let path = format!("/v1/snapshots/{snapshot}");
        let (status, _) = world.send(operator, "PATCH", &path, Some(edit)).await?;
        assert_eq!(status, StatusCode::OK);
        let path = format!("/v1/snapshots/{snapshot}/revert?wait=10s");
        let (status, _) = world.send(operator, "POST", &path, Some(json!({}))).await?;
        assert_eq!(status, StatusCode::OK);
        world.must("PATCH", switch, json!({ "snapshots-enabled": true })).await?;
    }
    Ok(())
}

/// R9: a second operation is refused with the first named, or gets in line; a create that runs is
/// cancelled and leaves nothing; whoever is in line may leave it; then the next has its turn.
#[tokio::test]
async fn a_line_moves_on_and_what_runs_can_be_cancelled() -> Result<()> {
    let scene = Scene::new(ToldAgent { hangs: true, ..ToldAgent::default() }).await?;
    scene.running().await?;
    let (app, who) = (&scene.app, &scene.who);
    let queue = How { queue: true, ..How::default() };
    let create = app.create_snapshot(who, How::default(), "web", named("one")).await?;
    let second = app.create_snapshot(who, How::default(), "web", named("two")).await;
    let refusal = second.expect_err("it is held");
    assert_eq!((refusal.code, refusal.blocking), (Code::VmBusy, vec![create.id]));
    let stop = app.stop_vm(who, queue, "web", false).await?;
    let start = app.start_vm(who, queue, "web").await?;
    let leaves = app.start_vm(who, queue, "web").await?;
    assert_eq!((stop.state.as_str(), start.state.as_str()), ("queued", "queued"));
    let left = app.cancel_operation(who, OperationId(leaves.id), Duration::ZERO).await?;
    assert_eq!(left.state, "cancelled");
    let cancelled =
        app.cancel_operation(who, OperationId(create.id), Duration::from_secs(10)).await?;
    assert_eq!(cancelled.state, "cancelled");
    assert!(app.tree(who, "web").await?.roots.is_empty(), "it is gone");
    assert_eq!(scene.ended(stop).await?.state, "succeeded");
    assert_eq!(scene.ended(start).await?.state, "succeeded");
    assert_eq!(app.vm(who, "web").await?.state, "running");
    let late = app.cancel_operation(who, OperationId(create.id), Duration::ZERO).await;
    assert_eq!(code(late), Code::OperationEnded);
    Ok(())
}

/// R9: whose turn it is to stop what is off by then has what was wanted.
#[tokio::test]
async fn a_machine_that_is_off_when_its_stop_comes_is_as_was_wanted() -> Result<()> {
    let scene = Scene::new(ToldAgent { hangs: true, ..ToldAgent::default() }).await?;
    scene.running().await?;
    let (app, who) = (&scene.app, &scene.who);
    let queue = How { queue: true, ..How::default() };
    let create = app.create_snapshot(who, How::default(), "web", named("one")).await?;
    let once = app.stop_vm(who, queue, "web", false).await?;
    let twice = app.stop_vm(who, queue, "web", false).await?;
    app.cancel_operation(who, OperationId(create.id), Duration::from_secs(10)).await?;
    assert_eq!(scene.ended(once).await?.state, "succeeded");
    assert_eq!(scene.ended(twice).await?.state, "succeeded");
    assert_eq!(app.vm(who, "web").await?.state, "stopped");
    Ok(())
}

/// R9: what was in line and may not be any more when its turn comes says why.
#[tokio::test]
async fn what_is_in_line_is_judged_when_its_turn_comes() -> Result<()> {
    let scene = Scene::new(ToldAgent { hangs: true, ..ToldAgent::default() }).await?;
    scene.running().await?;
    let (app, who) = (&scene.app, &scene.who);
    let queue = How { queue: true, ..How::default() };
    let create = app.create_snapshot(who, How::default(), "web", named("one")).await?;
    let stop = app.stop_vm(who, queue, "web", false).await?;
    let memory = rest::NewSnapshot { kind: Some("disk-and-memory".into()), ..named("two") };
    let taken = app.create_snapshot(who, queue, "web", memory).await?;
    app.cancel_operation(who, OperationId(create.id), Duration::from_secs(10)).await?;
    assert_eq!(scene.ended(stop).await?.state, "succeeded");
    let failed = scene.ended(taken).await?;
    let why = failed.error.map(|error| error.code);
    assert_eq!(
        (failed.state.as_str(), why.as_deref()),
        ("failed", Some("memory-needs-running-vm"))
    );
    Ok(())
}

/// R9: `stop --force` always works: it cancels what runs first, and goes before all in line.
#[tokio::test]
async fn power_is_cut_whatever_runs() -> Result<()> {
    let scene = Scene::new(ToldAgent { hangs: true, ..ToldAgent::default() }).await?;
    scene.running().await?;
    let (app, who) = (&scene.app, &scene.who);
    let create = app.create_snapshot(who, How::default(), "web", named("one")).await?;
    let queue = How { queue: true, ..How::default() };
    let waits = app.create_snapshot(who, queue, "web", named("two")).await?;
    let stop = app.stop_vm(who, How::default(), "web", true).await?;
    assert_eq!(scene.ended(stop).await?.state, "succeeded");
    assert_eq!(scene.ended(create).await?.state, "cancelled");
    assert_eq!(app.vm(who, "web").await?.state, "stopped");
    app.cancel_operation(who, OperationId(waits.id), Duration::from_secs(10)).await?;
    Ok(())
}

/// A snapshot goes when its time has come, unless it is protected.
#[tokio::test]
async fn what_expires_goes_and_what_is_protected_stays() -> Result<()> {
    let scene = Scene::new(ToldAgent::default()).await?;
    scene.running().await?;
    let (app, who) = (&scene.app, &scene.who);
    let soon = std::time::SystemTime::now() + Duration::from_millis(700);
    let soon = soon.duration_since(std::time::UNIX_EPOCH)?.as_millis();
    let soon = tintype_model::Moment(i64::try_from(soon)?).to_rfc3339();
    let past = rest::NewSnapshot { expires_at: Some("2020-01-01T00:00:00Z".into()), ..named("p") };
    let refused = app.create_snapshot(who, How::default(), "web", past).await;
    assert_eq!(code(refused), Code::InvalidRequest);
    for (name, protected) in [("goes", false), ("stays", true)] {
        let new = rest::NewSnapshot { expires_at: Some(soon.clone()), protected, ..named(name) };
        let accepted = app.create_snapshot(who, How::default(), "web", new).await?;
        assert_eq!(scene.ended(accepted).await?.state, "succeeded");
    }
    let until = std::time::Instant::now() + Duration::from_secs(10);
    let names = async || -> Result<Vec<String>> {
        let list = app.snapshots(who, Default::default(), &page(None)).await?;
        Ok(list.items.into_iter().map(|snapshot| snapshot.name).collect())
    };
    while names().await?.len() > 1 && std::time::Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(names().await?, ["stays"]);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(names().await?, ["stays"], "protection outlives expiry");
    Ok(())
}

/// What cannot be deleted is left alone for a while, not asked for each second.
#[tokio::test]
async fn what_expires_and_cannot_go_is_tried_now_and_then() -> Result<()> {
    let scene = Scene::new(ToldAgent { keeps: true, ..ToldAgent::default() }).await?;
    scene.running().await?;
    let (app, who) = (&scene.app, &scene.who);
    let soon = std::time::SystemTime::now() + Duration::from_millis(300);
    let soon = soon.duration_since(std::time::UNIX_EPOCH)?.as_millis();
    let soon = tintype_model::Moment(i64::try_from(soon)?).to_rfc3339();
    let kind = Some("disk-and-memory".to_owned());
    let new = rest::NewSnapshot { expires_at: Some(soon), kind, ..named("goes") };
    let accepted = app.create_snapshot(who, How::default(), "web", new).await?;
    assert_eq!(scene.ended(accepted).await?.state, "succeeded");
    tokio::time::sleep(Duration::from_millis(4500)).await;
    let failed = Some("failed".to_owned());
    let tried = app.operations(who, None, failed, &page(None)).await?.items;
    assert_eq!(tried.len(), 1, "{tried:?}");
    Ok(())
}

fn page(limit: Option<u32>) -> tintype_store::Page {
    tintype_store::Page::new(tintype_store::Order::Oldest, None, limit)
}

/// R4, R18: the safety snapshot counts against nothing, nobody is told of layers, and the next one
/// replaces it.
#[tokio::test]
async fn a_safety_snapshot_counts_against_nothing() -> Result<()> {
    let scene = Scene::new(ToldAgent::default()).await?;
    scene.running().await?;
    let (app, who) = (&scene.app, &scene.who);
    for name in ["one", "two", "three"] {
        scene.snapshot(name, "disk-and-memory").await?;
    }
    let list = app.snapshots(who, Default::default(), &page(None)).await?;
    let target = SnapshotId(list.items[0].id);
    let safely = rest::Revert { safety: true, ..Default::default() };
    for _ in 0..3 {
        let accepted = app.revert(who, How::default(), target, &safely).await?;
        assert_eq!(scene.ended(accepted).await?.state, "succeeded");
        let list = app.snapshots(who, Default::default(), &page(None)).await?;
        let safeties: Vec<_> = list.items.iter().filter(|snapshot| snapshot.safety).collect();
        assert_eq!((list.items.len(), safeties.len()), (4, 1));
        assert_eq!(safeties[0].kind, "disk-and-memory");
        assert!(!serde_json::to_string(&list)?.contains("layer"));
    }
    Ok(())
}

/// R1, and everything else that removes data: a dry run says what goes and changes nothing.
#[tokio::test]
async fn a_dry_run_says_what_goes_and_changes_nothing() -> Result<()> {
    let world = World::new().await?;
    world
        .must(
            "POST",
            "/v1/vms?wait=10s",
            json!({ "name": "vm", "memory_bytes": 1 << 30,
            "disks": [{ "size_bytes": 1 << 30 }, { "size_bytes": 1 << 30 }] }),
        )
        .await?;
    world.must("POST", "/v1/vms/vm/start?wait=10s", json!({})).await?;
    let new = json!({ "name": "one", "kind": "disk-and-memory" });
    let taken = world.must("POST", "/v1/vms/vm/snapshots?wait=10s", new).await?;
    let id = taken["snapshot"].as_str().context("it is named")?.to_owned();
    world.must("POST", "/v1/vms/vm/stop?wait=10s", json!({ "force": true })).await?;
    let before = world.must("GET", "/v1/vms/vm", json!({})).await?;
    let dry = async |method: &str, path: &str, body: Value| -> Result<Value> {
        let (status, plan) = world.send(&world.admin, method, path, Some(body)).await?;
        anyhow::ensure!(status == StatusCode::OK, "{path}: {status} {plan}");
        Ok(plan)
    };
    let plan = dry("DELETE", "/v1/vms/vm?dry_run=true", json!({})).await?;
    assert_eq!(plan["snapshots"].as_array().map(Vec::len), Some(1));
    assert_eq!(plan["disks"].as_array().map(Vec::len), Some(2));
    let plan = dry("DELETE", "/v1/vms/vm/snapshots?dry_run=true", json!({})).await?;
    assert_eq!(plan["snapshots"][0]["name"], "one");
    let path = format!("/v1/snapshots/{id}/revert?dry_run=true");
    let plan = dry("POST", &path, json!({})).await?;
    assert_eq!(plan["lost"], "what vm did since \"one\"");
    let edit = json!({ "vcpus": 2, "discard_memory": true });
    let plan = dry("PATCH", "/v1/vms/vm?dry_run=true", edit).await?;
    assert_eq!(plan["memory_lost"][0].as_str(), Some(id.as_str()));
    let plan = dry("DELETE", "/v1/vms/vm/disks/vdb?dry_run=true", json!({})).await?;
    assert_eq!(plan["disks"][0]["name"], "vdb");
    let smaller = json!({ "size_bytes": 1 << 20 });
    let plan = dry("PATCH", "/v1/vms/vm/disks/vdb?dry_run=true", smaller).await?;
    assert!(plan["lost"].as_str().is_some_and(|lost| lost.contains("last")), "{plan}");
    let after = world.must("GET", "/v1/vms/vm", json!({})).await?;
    assert_eq!(after, before);
    Ok(())
}

/// E19, E20, C31: pages are keyset pages in every order: with rows added and removed between them,
/// each row that stays is seen once; a place of one order is none of another.
#[tokio::test]
async fn pages_are_stable_while_rows_come_and_go() -> Result<()> {
    let world = World::new().await?;
    for n in 0..30 {
        let new = json!({ "name": format!("vm{:02}", n * 7 % 30), "memory_bytes": 1 << 30 });
        world.must("POST", "/v1/vms?wait=10s", new).await?;
    }
    for sort in ["created", "-created", "name", "-name"] {
        let mut seen = Vec::new();
        let mut path = format!("/v1/vms?limit=7&sort={sort}");
        let mut added = 0;
        loop {
            let (_, list) = world.send(&world.admin, "GET", &path, None).await?;
            let names = list["items"].as_array().cloned().unwrap_or_default();
            seen.extend(names.iter().filter_map(|vm| vm["name"].as_str().map(str::to_owned)));
            let Some(next) = list["next"].as_str() else { break };
            path = format!("/v1/vms?limit=7&sort={sort}&after={next}");
            added += 1;
            let name = format!("aa{}{added}", sort.trim_start_matches('-').len() + seen.len());
            let new = json!({ "name": name, "memory_bytes": 1 << 30 });
            world.must("POST", "/v1/vms?wait=10s", new).await?;
            world.must("DELETE", &format!("/v1/vms/{name}?wait=10s"), json!({})).await?;
        }
        let mut old: Vec<String> =
            seen.iter().filter(|name| name.starts_with("vm")).cloned().collect();
        let in_order = old.clone();
        old.sort();
        old.dedup();
        assert_eq!((old.len(), in_order.len()), (30, 30), "{sort}: each once");
        match sort {
            "name" => assert_eq!(in_order, old),
            "-name" => assert!(in_order.iter().rev().eq(old.iter())),
            _ => {}
        }
    }
    let (_, list) = world.send(&world.admin, "GET", "/v1/vms?limit=1&sort=name", None).await?;
    let next = list["next"].as_str().context("there is more")?;
    let path = format!("/v1/vms?after={next}");
    let (status, _) = world.send(&world.admin, "GET", &path, None).await?;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    Ok(())
}

/// E19, E20: every filter, alone and with others; keywords are looked for in name and description,
/// wherever they are, whatever they contain.
#[tokio::test]
async fn filters_find_what_they_say() -> Result<()> {
    let world = World::peopled().await?;
    let vm = format!("/v1/vms/{}/snapshots?wait=10s", world.things["mine"].vm);
    for (name, description) in [
        ("before upgrade", "kernel 6.12"),
        ("100% sure", "a_b"),
        ("Über", "say \"hi\" to it's owner"),
    ] {
        let new = json!({ "name": name, "description": description });
        let (status, answer) = world.send(&world.admin, "POST", &vm, Some(new)).await?;
        if status != StatusCode::OK {
            anyhow::ensure!(answer["code"] == "snapshot-limit-reached", "{answer}");
            let edit = json!({ "snapshot_limit": "unlimited" });
            world.must("PATCH", vm.split("/snapshots").next().unwrap_or_default(), edit).await?;
            world.must("POST", &vm, json!({ "name": name, "description": description })).await?;
        }
    }
    let found = async |query: &str| -> Result<BTreeSet<String>> {
        let items = items(&world, &world.admin, &format!("/v1/snapshots?{query}")).await?;
        Ok(items.iter().filter_map(|s| s["name"].as_str().map(str::to_owned)).collect())
    };
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let checks: [(&str, BTreeSet<String>); 12] = [
        ("keyword=upgrade", set(&["before upgrade"])),
        ("keyword=UPGRADE", set(&["before upgrade"])),
        ("keyword=6.1", set(&["before upgrade"])),
        ("keyword=%25", set(&["100% sure"])),
        ("keyword=a_b", set(&["100% sure"])),
        ("keyword=say%20%22hi%22", set(&["Über"])),
        ("keyword=it%27s", set(&["Über"])),
        ("keyword=before&keyword=kernel", set(&["before upgrade"])),
        ("keyword=before&keyword=nothing", set(&[])),
        ("account=foreign", set(&["one"])),
        ("domain=deep&state=ready&kind=disk", set(&["one"])),
        ("created-after=2099-01-01T00:00:00Z", set(&[])),
    ];
    for (query, expected) in checks {
        assert_eq!(found(query).await?, expected, "{query}");
    }
    let all = found("created-before=2099-01-01T00:00:00Z&domain=root").await?;
    assert_eq!(all.len(), 4);
    for bad in ["state=gone", "sort=size", "created-after=yesterday", "colour=red"] {
        let path = format!("/v1/snapshots?{bad}");
        let (status, _) = world.send(&world.admin, "GET", &path, None).await?;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{bad}");
    }
    Ok(())
}

/// R9: what waits in line holds what was asked for and no more: what others changed before its turn
/// stays as they left it.
#[tokio::test]
async fn what_waits_takes_nothing_back() -> Result<()> {
    let scene = Scene::new(ToldAgent { hangs: true, ..ToldAgent::default() }).await?;
    let (app, who) = (&scene.app, &scene.who);
    let disk = rest::NewDisk { size_bytes: Some(1 << 30), file: None };
    let new = rest::NewVm { disks: vec![disk; 2], ..new_vm("web") };
    let accepted = app.create_vm(who, How::default(), new).await?;
    scene.ended(accepted).await?;
    let create = app.create_snapshot(who, How::default(), "web", named("one")).await?;
    let queue = How { queue: true, ..How::default() };
    let detach = app.detach_disk(who, queue, "web", "vdb").await?;
    let edit = rest::EditVm { vcpus: Some(2), ..Default::default() };
    let Edited::Accepted(set) = app.edit_vm(who, queue, "web", edit).await? else {
        anyhow::bail!("it waits for its turn");
    };
    let clone = rest::CloneVm { name: "clone".into(), snapshot: None, linked: false };
    let clone = app.clone_vm(who, queue, "web", clone).await?;
    app.cancel_operation(who, OperationId(create.id), Duration::from_secs(10)).await?;
    assert_eq!(scene.ended(detach).await?.state, "succeeded");
    assert_eq!(scene.ended(*set).await?.state, "succeeded");
    let why = scene.ended(clone).await?.error.map(|error| error.code);
    assert_eq!(why.as_deref(), Some("unknown-disk"), "its disks have changed meanwhile");
    let vm = app.vm(who, "web").await?;
    assert_eq!((vm.disks.len(), vm.vcpus), (1, 2));
    assert_eq!(code(app.vm(who, "clone").await), Code::UnknownVm);
    Ok(())
}

/// R9: a clone that waits to be made has a line of its own, which moves on when it is made and ends
/// when it is given up.
#[tokio::test]
async fn the_line_of_a_clone_moves_on() -> Result<()> {
    let scene = Scene::new(ToldAgent { hangs: true, ..ToldAgent::default() }).await?;
    let (app, who) = (&scene.app, &scene.who);
    let accepted = app.create_vm(who, How::default(), new_vm("web")).await?;
    scene.ended(accepted).await?;
    let queue = How { queue: true, ..How::default() };
    for given_up in [false, true] {
        let name = format!("clone-{given_up}");
        let create = app.create_snapshot(who, How::default(), "web", named("one")).await?;
        // Of NOW it would take a snapshot, which hangs here: so it is cancelled in either case.
        let clone = rest::CloneVm { name: name.clone(), snapshot: None, linked: false };
        let clone = app.clone_vm(who, queue, "web", clone).await?;
        let start = app.start_vm(who, queue, &name).await?;
        assert_eq!(start.state, "queued");
        if given_up {
            app.cancel_operation(who, OperationId(clone.id), Duration::ZERO).await?;
        }
        app.cancel_operation(who, OperationId(create.id), Duration::from_secs(10)).await?;
        if !given_up {
            let cancelled =
                app.cancel_operation(who, OperationId(clone.id), Duration::from_secs(10)).await?;
            assert_eq!(cancelled.state, "cancelled");
        }
        let ended = scene.ended(start).await?;
        let why = ended.error.map(|error| error.code);
        assert_eq!((ended.state.as_str(), why.as_deref()), ("failed", Some("unknown-vm")));
        assert_eq!(code(app.vm(who, &name).await), Code::UnknownVm);
    }
    Ok(())
}
