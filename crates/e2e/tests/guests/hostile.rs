//! Requests that nobody would send, drawn from the interface's own description by a client that is
//! not ours, and sent to a real server.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::path::Path;
use std::process::{Command, Stdio};
use tintype_e2e::World;

/// What is looked at in each answer.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_schema_conformance";

/// No answer is a 5xx, and none is another than the description says. `TINTYPE_EXAMPLES` is how
/// many are drawn for each operation, beside those that the description itself leads to.
#[test]
fn hostile_requests_get_the_answers_described() -> Result<()> {
    let client =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/hostile/bin/schemathesis");
    let client = client.canonicalize().context("it is not installed: scripts/hostile-client")?;
    let world = World::start()?;
    // The name that it tries first: what follows is asked of a machine that there is.
    world.post("/v1/vms", &json!({ "name": "0", "memory_bytes": 64 << 20 }))?;
    world.post("/v1/vms/0/snapshots", &json!({ "name": "0" }))?;
    let (url, token) = world.access()?;
    let examples = std::env::var("TINTYPE_EXAMPLES").unwrap_or_else(|_| "20".to_owned());
    let output = Command::new(client)
        .args(["run", "--no-color", "--checks", CHECKS, "--continue-on-failure"])
        .args(["--phases", "examples,coverage,fuzzing", "--generation-database", "none"])
        .args(["--seed", "1", "--max-examples", &examples, "--request-timeout", "60"])
        // What is followed has no end.
        .args(["--exclude-operation-id", "follow", "--warnings", "off"])
        .args(["--header", &format!("Authorization: Bearer {token}")])
        .arg(format!("{url}/openapi.json"))
        .current_dir(world.data())
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    ensure!(output.status.success(), "answers were not as described:\n{said}");
    Ok(())
}
