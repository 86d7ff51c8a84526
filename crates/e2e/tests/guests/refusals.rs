//! Bad input: each a clear refusal, and nothing changed. Without a guest that runs where one is
//! not needed.

use anyhow::{Context, Result};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use std::fs;
use std::fs::OpenOptions;
use std::io::Write;
use tintype_e2e::{TestVm, World, new_vm};
use tintype_wire::rest::{List, NewDisk, NewVm, Vm};

/// How many machines, snapshots and folders there are.
fn census(world: &World) -> Result<(usize, usize, usize)> {
    let vms: List<Vm> = world.get("/v1/vms")?;
    let snapshots: List<Value> = world.get("/v1/snapshots")?;
    let folders = fs::read_dir(world.pool())?.count();
    Ok((vms.items.len(), snapshots.items.len(), folders))
}

/// Asks for something that is refused with this code, and changes nothing.
fn check(world: &World, path: &str, body: &impl serde::Serialize, code: &str) -> Result<()> {
    let before = census(world)?;
    let problem = world.refused(path, body)?;
    assert_eq!(problem.code, code, "{problem:?}");
    assert!(!problem.title.is_empty());
    assert_eq!(census(world)?, before, "{code} changed something");
    Ok(())
}

/// R14, C22, E7, E10, E11, C38, P41.
#[test]
fn what_makes_no_sense_is_refused() -> Result<()> {
    let world = World::start()?;
    let vm = TestVm::create(&world, "web", 64)?;
    let taken = vm.snapshot(&world, "taken", "disk")?;
    let snapshots = vm.path("/snapshots");
    let nobody = "/v1/vms/nobody/snapshots";
    check(&world, nobody, &json!({}), "unknown-vm")?;
    check(&world, "/v1/vms/nobody/start", &json!({}), "unknown-vm")?;
    let unknown = format!("/v1/snapshots/{}/revert", uuid::Uuid::new_v4());
    check(&world, &unknown, &json!({}), "unknown-snapshot")?;
    check(&world, "/v1/snapshots/no-id/revert", &json!({}), "unknown-snapshot")?;
    check(&world, &snapshots, &json!({ "name": "taken" }), "name-taken")?;
    check(&world, &snapshots, &json!({ "name": "" }), "name-invalid")?;
    check(&world, &snapshots, &json!({ "name": "a\nb" }), "name-invalid")?;
    check(&world, &snapshots, &json!({ "name": "x".repeat(256) }), "name-invalid")?;
    check(&world, &snapshots, &json!({ "kind": "disk-and-memory" }), "memory-needs-running-vm")?;
    check(&world, &snapshots, &json!({ "kind": "tape" }), "invalid-request")?;
    check(&world, &snapshots, &json!({ "nmae": "x" }), "invalid-request")?;
    check(&world, &snapshots, &json!({ "description": "x".repeat(5000) }), "invalid-request")?;
    check(&world, &format!("{snapshots}?wait=soon"), &json!({}), "invalid-request")?;
    check(&world, &format!("{snapshots}?what=1"), &json!({}), "invalid-request")?;
    let revert = format!("/v1/snapshots/{}/revert", taken.id);
    check(&world, &revert, &json!({ "power": "maybe" }), "invalid-request")?;
    check(&world, &vm.path("/stop"), &json!({}), "vm-not-running")?;
    check(&world, "/v1/nothing", &json!({}), "unknown-address")?;
    check(&world, "/v1/hosts", &json!({}), "method-not-allowed")?;
    Ok(())
}

/// R14.
#[test]
fn a_machine_that_cannot_be_is_refused() -> Result<()> {
    let world = World::start()?;
    TestVm::create(&world, "web", 64)?;
    let good = new_vm("new", 64, 1)?;
    let refuse = |new: NewVm, code: &str| check(&world, "/v1/vms", &new, code);
    for name in ["", "-x", "a b", "../x", "a/b", "67e55044-10b1-426f-9247-bb680e5fe0c8"] {
        refuse(NewVm { name: name.into(), ..good.clone() }, "name-invalid")?;
    }
    refuse(NewVm { name: "x".repeat(64), ..good.clone() }, "name-invalid")?;
    refuse(NewVm { name: "web".into(), ..good.clone() }, "name-taken")?;
    refuse(NewVm { memory_bytes: 1000, ..good.clone() }, "invalid-request")?;
    refuse(NewVm { vcpus: 0, ..good.clone() }, "invalid-request")?;
    refuse(NewVm { firmware: Some("coreboot".into()), ..good.clone() }, "invalid-request")?;
    refuse(NewVm { networks: vec!["tap:../x".into()], ..good.clone() }, "invalid-request")?;
    refuse(NewVm { kernel: Some("/nowhere".into()), ..good.clone() }, "boot-file-missing")?;
    refuse(NewVm { kernel: None, ..good.clone() }, "invalid-request")?;
    let neither = NewDisk { size_bytes: None, file: None };
    refuse(NewVm { disks: vec![neither], ..good.clone() }, "invalid-request")?;
    let odd = NewDisk { size_bytes: Some(1_000_001), file: None };
    refuse(NewVm { disks: vec![odd], ..good.clone() }, "invalid-request")?;
    let huge = NewVm { memory_bytes: 1 << 50, ..good };
    world.post("/v1/vms", &huge)?;
    check(&world, "/v1/vms/new/start", &json!({}), "host-memory-short")
}

/// A disk file that is missing, in use, no image, or leads to other files. What is copied is
/// equal, and the file given is never written to.
#[test]
fn a_disk_file_is_not_trusted() -> Result<()> {
    let world = World::start()?;
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    let refuse = |name: &str, code: &str| {
        let file = Some(path(name).display().to_string());
        let disks = vec![NewDisk { size_bytes: None, file }];
        check(&world, "/v1/vms", &NewVm { disks, ..new_vm("new", 64, 0)? }, code)
    };
    refuse("missing", "disk-missing")?;
    fs::write(path("note.txt"), "not a disk")?;
    refuse("note.txt", "disk-not-an-image")?;
    fs::write(path("empty"), "")?;
    refuse("empty", "disk-not-an-image")?;
    fs::create_dir(path("folder"))?;
    refuse("folder", "disk-not-an-image")?;
    fs::write(path("disk.vmdk"), [b"KDMV".as_slice(), &[0; 508]].concat())?;
    refuse("disk.vmdk", "disk-not-an-image")?;
    fs::write(path("raw"), vec![7; 1 << 20])?;
    let mut writer = OpenOptions::new().append(true).open(path("raw"))?;
    refuse("raw", "disk-in-use")?;
    writer.flush()?;
    drop(writer);
    let image = |args: &[&str]| -> Result<()> {
        let status = std::process::Command::new("qemu-img")
            .args(args)
            .current_dir(folder.path())
            .stdout(std::process::Stdio::null())
            .status()?;
        anyhow::ensure!(status.success(), "qemu-img {args:?}");
        Ok(())
    };
    image(&["create", "-f", "qcow2", "-b", "/etc/passwd", "-F", "raw", "-u", "evil", "1M"])?;
    refuse("evil", "disk-has-backing")?;
    image(&["create", "-f", "qcow2", "-o", "data_file=/tmp/other,data_file_raw=on", "data", "1M"])
        .or_else(|_| image(&["create", "-f", "qcow2", "-b", "raw", "-F", "raw", "data"]))?;
    refuse("data", "disk-has-backing")?;

    let before = fs::read(path("raw"))?;
    let file = Some(path("raw").display().to_string());
    let disks = vec![NewDisk { size_bytes: None, file }];
    world.post("/v1/vms", &NewVm { disks, ..new_vm("copied", 64, 0)? })?;
    let vm: Vm = world.get("/v1/vms/copied")?;
    assert_eq!(vm.disks[0].size_bytes, 1 << 20);
    let copy = fs::read_dir(world.pool().join(vm.id.to_string()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|ending| ending == "raw"))
        .context("the copy is a raw layer")?;
    assert_eq!(fs::read(copy)?, before);
    assert_eq!(fs::read(path("raw"))?, before);
    let _ = fs::remove_file("/tmp/other");
    Ok(())
}

/// E10, E11, R9: the second operation is refused at once and names the first, which goes on.
#[test]
fn a_busy_machine_names_what_holds_it() -> Result<()> {
    let world = World::start()?;
    let vm = TestVm::boot(&world, "web")?;
    vm.guest.fill(60)?;
    let memory = json!({ "kind": "disk-and-memory" });
    let first: tintype_wire::rest::Operation =
        world.wait(world.client().post(&vm.path("/snapshots"), &memory))?;
    let problem = world.refused(&vm.path("/snapshots"), &json!({}))?;
    assert_eq!((problem.code.as_str(), problem.blocking), ("vm-busy", vec![first.id]));
    assert_eq!(vm.show(&world)?.operation.map(|held| held.id), Some(first.id));
    let ended = world.wait(world.client().follow(first.id, |_| {}))?;
    assert_eq!(ended.state, "succeeded");
    assert_eq!(vm.snapshots(&world)?.len(), 1);
    Ok(())
}

/// What does not come through the front door: no token, a foreign name, too large, no JSON.
#[test]
fn the_door_is_closed_to_strangers() -> Result<()> {
    let world = World::start()?;
    let text = fs::read_to_string(world.data().join("client.toml"))?;
    let access: toml::Table = text.parse()?;
    let url = access["url"].as_str().context("a url")?;
    let token = format!("Bearer {}", access["token"].as_str().context("a token")?);
    let http = Client::new();
    let ask = |path: &str, headers: &[(&str, &str)], body: Option<Vec<u8>>| {
        let method = if body.is_some() { Method::POST } else { Method::GET };
        let mut request = http.request(method, format!("{url}{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.unwrap_or_default());
        world.wait(async {
            let response = request.send().await?;
            let status = response.status();
            let kind = response.headers().get("content-type").cloned();
            let body: Value = response.json().await?;
            anyhow::Ok((status, kind, body["code"].as_str().unwrap_or_default().to_owned()))
        })
    };
    let auth = ("authorization", token.as_str());
    let (status, kind, code) = ask("/v1/vms", &[], None)?;
    assert_eq!((status, code.as_str()), (StatusCode::UNAUTHORIZED, "unauthorized"));
    assert_eq!(kind.context("a content type")?, "application/problem+json");
    assert_eq!(ask("/health", &[], None)?.0, StatusCode::OK, "whether it is well anybody may ask");
    for path in ["/v1/pools", "/openapi.json", "/v1/nothing"] {
        assert_eq!(ask(path, &[], None)?.0, StatusCode::UNAUTHORIZED, "{path}");
        assert_ne!(ask(path, &[auth], None)?.0, StatusCode::UNAUTHORIZED, "{path}");
    }
    let wrong = ("authorization", "Bearer 00");
    assert_eq!(ask("/v1/vms", &[wrong], None)?.0, StatusCode::UNAUTHORIZED);
    let foreign = ask("/v1/vms", &[auth, ("host", "evil.example")], None)?;
    assert_eq!((foreign.0, foreign.2.as_str()), (StatusCode::FORBIDDEN, "foreign-host"));
    let origin = ask("/v1/vms", &[auth, ("origin", "http://evil.example")], None)?;
    assert_eq!(origin.0, StatusCode::FORBIDDEN);
    let broken = ask("/v1/vms", &[auth], Some(b"{\"name\": ".to_vec()))?;
    assert_eq!((broken.0, broken.2.as_str()), (StatusCode::BAD_REQUEST, "invalid-request"));
    let large = ask("/v1/vms", &[auth], Some(vec![b' '; (1 << 20) + 1]))?;
    assert_eq!((large.0, large.2.as_str()), (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large"));
    Ok(())
}

/// A repeated POST with the same key is done once; another one with it is refused.
#[test]
fn a_repeated_request_is_done_once() -> Result<()> {
    let world = World::start()?;
    let vm = TestVm::create(&world, "web", 64)?;
    let text = fs::read_to_string(world.data().join("client.toml"))?;
    let access: toml::Table = text.parse()?;
    let url = access["url"].as_str().context("a url")?;
    let token = access["token"].as_str().context("a token")?;
    let http = Client::new();
    let ask = |name: &str| {
        let request = http
            .post(format!("{url}{}?wait=30s", vm.path("/snapshots")))
            .bearer_auth(token)
            .header("Idempotency-Key", "once")
            .json(&json!({ "name": name }));
        world.wait(async {
            let response = request.send().await?;
            anyhow::Ok((response.status(), response.json::<Value>().await?))
        })
    };
    let (status, first) = ask("one")?;
    assert_eq!(status, StatusCode::OK);
    let (_, again) = ask("one")?;
    assert_eq!(first["id"], again["id"]);
    let (status, other) = ask("two")?;
    assert_eq!((status, other["code"].as_str()), (StatusCode::CONFLICT, Some("key-reused")));
    assert_eq!(vm.snapshots(&world)?.len(), 1);
    Ok(())
}

/// The command line's exit codes: 0 done, 2 usage, 3 refused, 4 not found, 5 not signed in.
#[test]
fn exit_codes_tell_what_kind_of_no_it_was() -> Result<()> {
    let world = World::start()?;
    let vm = TestVm::create(&world, "web", 64)?;
    let code = |args: &[&str]| -> Result<Option<i32>> { Ok(world.tintype(args)?.status.code()) };
    assert_eq!(code(&["vm", "list"])?, Some(0));
    assert_eq!(code(&["snapshot", "create", "web", "one"])?, Some(0));
    assert_eq!(code(&["snapshot", "create", "web", "one"])?, Some(3));
    assert_eq!(code(&["snapshot", "create", "web", "--memory"])?, Some(3));
    assert_eq!(code(&["vm", "show", "nobody"])?, Some(4));
    assert_eq!(code(&["snapshot", "revert", "web", "nothing"])?, Some(4));
    assert_eq!(code(&["vm", "list", "--token", "wrong"])?, Some(5));
    assert_eq!(code(&["snapshot", "delete", "web"])?, Some(2));
    assert_eq!(code(&["vm", "create"])?, Some(2));
    assert_eq!(code(&["snapshot", "rollback", "web", "one"])?, Some(0));
    let shown = world.tintype(&["vm", "show", "web", "--output", "json"])?;
    let shown: Value = serde_json::from_slice(&shown.stdout)?;
    assert_eq!(shown["id"].as_str(), Some(vm.id.to_string().as_str()));
    let refused = world.tintype(&["vm", "start", "nobody", "--output", "json"])?;
    let problem: Value = serde_json::from_slice(&refused.stderr)?;
    assert_eq!(problem["code"].as_str(), Some("unknown-vm"));
    Ok(())
}
