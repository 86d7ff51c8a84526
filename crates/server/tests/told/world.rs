//! People in a tree of domains, each account with a machine that has a snapshot, and requests as
//! they come over HTTP.

use super::{Scene, ToldAgent, new_vm};
use anyhow::{Context, Result};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tintype_model::OperationId;
use tintype_server::app::How;
use tintype_server::{Gate, router};
use tintype_wire::rest;
use tower::ServiceExt;
use uuid::Uuid;

pub const ROLES: [&str; 4] = ["viewer", "user", "operator", "administrator"];

/// What belongs to one account.
#[derive(Clone, Debug)]
pub struct Belongings {
    pub domain: Uuid,
    pub account: Uuid,
    pub user: Uuid,
    pub vm: Uuid,
    pub snapshot: Uuid,
    pub operation: Uuid,
}

/// `root > east > deep` and `root > west`; accounts `mine` and `theirs` in east, `below` in deep,
/// `foreign` in west. In `mine` there is a user of every role.
pub struct World {
    pub scene: Scene,
    pub router: Router,
    pub admin: String,
    pub tokens: BTreeMap<&'static str, String>,
    pub token_ids: BTreeMap<&'static str, Uuid>,
    pub things: BTreeMap<&'static str, Belongings>,
}

impl World {
    pub async fn new() -> Result<Self> {
        Self::with(ToldAgent::default()).await
    }

    pub async fn with(agent: ToldAgent) -> Result<Self> {
        let scene = Scene::new(agent).await?;
        let admin = scene.app.local_token(None).await?;
        let gate = Gate::new("127.0.0.1:7420".parse()?, &[], false);
        let router = router(Arc::clone(&scene.app), Arc::new(gate));
        let (tokens, token_ids) = (BTreeMap::new(), BTreeMap::new());
        let things = BTreeMap::new();
        Ok(Self { scene, router, admin, tokens, token_ids, things })
    }

    /// The world with all its people.
    pub async fn peopled() -> Result<Self> {
        let mut world = Self::new().await?;
        let mut domains = BTreeMap::new();
        for (name, parent) in [("east", "root"), ("deep", "east"), ("west", "root")] {
            let new = json!({ "name": name, "parent": parent });
            let made = world.must("POST", "/v1/domains", new).await?;
            domains.insert(name, id_in(&made, "id")?);
        }
        for (account, domain) in
            [("mine", "east"), ("theirs", "east"), ("below", "deep"), ("foreign", "west")]
        {
            let thing = world.settle(account, domains[domain]).await?;
            world.things.insert(account, thing);
        }
        for role in ROLES {
            let new = json!({ "name": role, "account": "mine", "role": role });
            world.must("POST", "/v1/users", new).await?;
            let made = world.must("POST", "/v1/tokens", json!({ "user": role })).await?;
            let secret = made["secret"].as_str().context("it is shown once")?;
            world.tokens.insert(role, secret.to_owned());
            world.token_ids.insert(role, id_in(&made, "id")?);
        }
        Ok(world)
    }

    async fn settle(&self, account: &str, domain: Uuid) -> Result<Belongings> {
        let new = json!({ "name": account, "domain": domain.to_string() });
        let made = self.must("POST", "/v1/accounts", new).await?;
        let new = json!({ "name": format!("{account}-user"), "account": account });
        let user = self.must("POST", "/v1/users", new).await?;
        let (app, who) = (&self.scene.app, &self.scene.who);
        let name = format!("{account}-vm");
        let new = rest::NewVm { account: Some(account.to_owned()), ..new_vm(&name) };
        let accepted = app.create_vm(who, How::default(), new).await?;
        let vm = accepted.vm;
        self.scene.ended(accepted).await?;
        let new = rest::NewSnapshot { name: Some("one".into()), ..Default::default() };
        let taken = app.create_snapshot(who, How::default(), &vm.to_string(), new).await?;
        let ended = app.operation(who, OperationId(taken.id), Duration::from_secs(10)).await?;
        Ok(Belongings {
            domain,
            account: id_in(&made, "id")?,
            user: id_in(&user, "id")?,
            vm,
            snapshot: ended.snapshot.context("it names the snapshot")?,
            operation: ended.id,
        })
    }

    /// Sends a request; answers status and body.
    pub async fn send(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> Result<(StatusCode, Value)> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "127.0.0.1:7420")
            .header("authorization", format!("Bearer {token}"))
            .body(body.map_or_else(Body::empty, |body| Body::from(body.to_string())))?;
        let response = self.router.clone().oneshot(request).await?;
        let status = response.status();
        // A console goes on for ever.
        if path.ends_with("/console") && status.is_success() {
            return Ok((status, Value::Null));
        }
        let bytes = to_bytes(response.into_body(), 1 << 22).await?;
        Ok((status, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
    }

    /// Has the first administrator do something that has to succeed.
    pub async fn must(&self, method: &str, path: &str, body: Value) -> Result<Value> {
        let (status, answer) = self.send(&self.admin, method, path, Some(body)).await?;
        anyhow::ensure!(status.is_success(), "{method} {path}: {status} {answer}");
        Ok(answer)
    }
}

pub fn id_in(value: &Value, field: &str) -> Result<Uuid> {
    let text = value[field].as_str().with_context(|| format!("no {field} in {value}"))?;
    Ok(text.parse()?)
}
