//! `/v1/snapshots` and what hangs under a virtual machine.

use super::extract::{Body, No, Params, Reply, duration, id, page};
use super::vm::{Waiting, wait};
use crate::app::{App, DeleteTarget, SnapshotQuery};
use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use tintype_model::refusal::Code;
use tintype_model::tree::Scope;
use tintype_model::{Moment, Refusal, SnapshotId};
use tintype_store::SnapshotFilter;
use tintype_wire::rest::{
    DeletePlan, EditSnapshot, List, NewSnapshot, Operation, Problem, Revert, Snapshot, Tree,
};
use utoipa::IntoParams;

/// Which snapshots to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[into_params(parameter_in = Query)]
pub(super) struct Filters {
    /// Of this virtual machine, by name or id.
    vm: Option<String>,
    /// In this state.
    state: Option<String>,
    /// Of this kind.
    kind: Option<String>,
    /// With this in name or description.
    keyword: Option<String>,
    /// Created at this moment or later, in milliseconds since 1970.
    created_after: Option<i64>,
    /// Created before this moment, in milliseconds since 1970.
    created_before: Option<i64>,
    /// What an earlier page said is next.
    after: Option<String>,
    /// Most items on the page: 1 to 1000, 100 if not given.
    limit: Option<u32>,
}

impl Filters {
    fn query(self) -> Reply<SnapshotQuery> {
        let filter = SnapshotFilter {
            vm: None,
            state: word("state", self.state)?,
            kind: word("kind", self.kind)?,
            keyword: self.keyword,
            created_after: self.created_after.map(Moment),
            created_before: self.created_before.map(Moment),
        };
        Ok(SnapshotQuery { vm: self.vm, filter })
    }
}

/// An enumeration in a query.
fn word<T: DeserializeOwned>(what: &str, text: Option<String>) -> Reply<Option<T>> {
    let parse = |text: String| {
        serde_json::from_value(text.clone().into()).map_err(|_| {
            No::from(Refusal::new(Code::InvalidRequest).detail(format!("{what} {text:?}")))
        })
    };
    text.map(parse).transpose()
}

/// What to delete.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Deleting {
    /// `one` (if not given; its children move up), `subtree` or `children`.
    scope: Option<String>,
    /// Answer what would be done, and do nothing.
    #[serde(default)]
    dry_run: bool,
    /// Answer when the operation has ended, or after this time, such as `30s`.
    wait: Option<String>,
}

/// Lists snapshots.
#[utoipa::path(get, path = "/v1/snapshots", tag = "snapshots", params(Filters),
    responses((status = 200, body = List<Snapshot>), (status = "default", body = Problem)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Params(filters): Params<Filters>,
) -> Reply<Json<List<Snapshot>>> {
    let page = page(filters.after.as_deref(), filters.limit)?;
    Ok(Json(app.snapshots(filters.query()?, page).await?))
}

/// Lists the snapshots of a virtual machine.
#[utoipa::path(get, path = "/v1/vms/{vm}/snapshots", tag = "snapshots",
    params(("vm" = String, Path, description = "Name or id"), Filters),
    responses((status = 200, body = List<Snapshot>), (status = "default", body = Problem)))]
pub(super) async fn list_of(
    State(app): State<Arc<App>>,
    Path(vm): Path<String>,
    Params(filters): Params<Filters>,
) -> Reply<Json<List<Snapshot>>> {
    let page = page(filters.after.as_deref(), filters.limit)?;
    let query = SnapshotQuery { vm: Some(vm), ..filters.query()? };
    Ok(Json(app.snapshots(query, page).await?))
}

/// Takes a snapshot.
#[utoipa::path(post, path = "/v1/vms/{vm}/snapshots", tag = "snapshots", request_body = NewSnapshot,
    params(("vm" = String, Path, description = "Name or id"), Waiting),
    responses((status = 202, body = Operation), (status = 200, body = Operation),
              (status = "default", body = Problem)))]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    Path(vm): Path<String>,
    Params(waiting): Params<Waiting>,
    Body(new): Body<NewSnapshot>,
) -> Reply<Response> {
    duration(waiting.wait.as_deref())?;
    let accepted = app.create_snapshot(&vm, new).await?;
    wait(&app, accepted, &waiting).await
}

/// Deletes every snapshot of a virtual machine.
#[utoipa::path(delete, path = "/v1/vms/{vm}/snapshots", tag = "snapshots",
    params(("vm" = String, Path, description = "Name or id"), Deleting),
    responses((status = 202, body = Operation), (status = 200, body = Operation),
              (status = 200, body = DeletePlan), (status = "default", body = Problem)))]
pub(super) async fn delete_all(
    State(app): State<Arc<App>>,
    Path(vm): Path<String>,
    Params(deleting): Params<Deleting>,
) -> Reply<Response> {
    if deleting.scope.is_some() {
        let refusal = Refusal::new(Code::InvalidRequest).detail("a scope needs a snapshot");
        return Err(refusal.into());
    }
    remove(&app, DeleteTarget::All(vm), deleting).await
}

/// Shows the snapshot tree of a virtual machine, with NOW in it.
#[utoipa::path(get, path = "/v1/vms/{vm}/tree", tag = "snapshots",
    params(("vm" = String, Path, description = "Name or id")),
    responses((status = 200, body = Tree), (status = "default", body = Problem)))]
pub(super) async fn tree(State(app): State<Arc<App>>, Path(vm): Path<String>) -> Reply<Json<Tree>> {
    Ok(Json(app.tree(&vm).await?))
}

/// Shows a snapshot.
#[utoipa::path(get, path = "/v1/snapshots/{id}", tag = "snapshots",
    params(("id" = String, Path, description = "Id")),
    responses((status = 200, body = Snapshot), (status = "default", body = Problem)))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    Path(text): Path<String>,
) -> Reply<Json<Snapshot>> {
    Ok(Json(app.snapshot(id(&text, Code::UnknownSnapshot)?).await?))
}

/// Changes name and description of a snapshot.
#[utoipa::path(patch, path = "/v1/snapshots/{id}", tag = "snapshots", request_body = EditSnapshot,
    params(("id" = String, Path, description = "Id")),
    responses((status = 200, body = Snapshot), (status = "default", body = Problem)))]
pub(super) async fn edit(
    State(app): State<Arc<App>>,
    Path(text): Path<String>,
    Body(edit): Body<EditSnapshot>,
) -> Reply<Json<Snapshot>> {
    Ok(Json(app.edit_snapshot(id(&text, Code::UnknownSnapshot)?, edit).await?))
}

/// Deletes a snapshot, or what descends from it.
#[utoipa::path(delete, path = "/v1/snapshots/{id}", tag = "snapshots",
    params(("id" = String, Path, description = "Id"), Deleting),
    responses((status = 202, body = Operation), (status = 200, body = Operation),
              (status = 200, body = DeletePlan), (status = "default", body = Problem)))]
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    Path(text): Path<String>,
    Params(deleting): Params<Deleting>,
) -> Reply<Response> {
    let id: SnapshotId = id(&text, Code::UnknownSnapshot)?;
    let scope = match deleting.scope.as_deref() {
        None | Some("one") => Scope::One(id),
        Some("subtree") => Scope::Subtree(id),
        Some("children") => Scope::Children(id),
        Some(other) => {
            return Err(Refusal::new(Code::InvalidRequest)
                .detail(format!("scope {other:?}"))
                .hint("one, subtree or children")
                .into());
        }
    };
    remove(&app, DeleteTarget::Of(scope), deleting).await
}

async fn remove(app: &Arc<App>, target: DeleteTarget, deleting: Deleting) -> Reply<Response> {
    if deleting.dry_run {
        return Ok(Json(app.plan_delete(&target).await?).into_response());
    }
    let waiting = Waiting { wait: deleting.wait };
    duration(waiting.wait.as_deref())?;
    let accepted = app.delete_snapshots(&target).await?;
    wait(app, accepted, &waiting).await
}

/// Goes back to a snapshot.
#[utoipa::path(post, path = "/v1/snapshots/{id}/revert", tag = "snapshots", request_body = Revert,
    params(("id" = String, Path, description = "Id"), Waiting),
    responses((status = 202, body = Operation), (status = 200, body = Operation),
              (status = "default", body = Problem)))]
pub(super) async fn revert(
    State(app): State<Arc<App>>,
    Path(text): Path<String>,
    Params(waiting): Params<Waiting>,
    Body(revert): Body<Revert>,
) -> Reply<Response> {
    duration(waiting.wait.as_deref())?;
    let accepted = app.revert(id(&text, Code::UnknownSnapshot)?, &revert).await?;
    wait(&app, accepted, &waiting).await
}
