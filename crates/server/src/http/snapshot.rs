//! `/v1/snapshots` and what hangs under a virtual machine.

use super::extract::{Body, By, Listed, Params, Path, Reply, id, order, page, word};
use super::openapi::DoneOrPlanned;
use super::vm::{Acting, wait};
use crate::app::{App, DeleteTarget, SnapshotQuery};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use std::sync::Arc;
use tintype_model::access::Caller;
use tintype_model::refusal::Code;
use tintype_model::tree::Scope;
use tintype_model::{Moment, Refusal, SnapshotId};
use tintype_store::{Page, SnapshotFilter};
use tintype_wire::rest::{
    EditSnapshot, Export, List, NewSnapshot, Operation, Problem, Revert, Snapshot, Tree,
};
use utoipa::IntoParams;

/// Which snapshots to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[into_params(parameter_in = Query)]
pub(super) struct Filters {
    /// Of this virtual machine, by name or id.
    vm: Option<String>,
    /// Of this account, by name or id.
    account: Option<String>,
    /// Of this domain and those beneath, by name or id.
    domain: Option<String>,
    /// In this state.
    state: Option<String>,
    /// Of this kind.
    kind: Option<String>,
    /// With this in name or description; may be given several times.
    #[serde(default)]
    keyword: Vec<String>,
    /// Created at this moment (RFC 3339) or later.
    created_after: Option<String>,
    /// Created before this moment (RFC 3339).
    created_before: Option<String>,
    /// `created` (if not given), `-created`, `name` or `-name`.
    sort: Option<String>,
    /// What an earlier page said is next.
    after: Option<String>,
    /// Most items on the page: 1 to 1000, 100 if not given.
    limit: Option<u32>,
}

impl Filters {
    fn read(self) -> Reply<(SnapshotQuery, Page)> {
        let sort = order(self.sort.as_deref())?;
        let page = page(sort, self.after.as_deref(), self.limit)?;
        let moment = |text: Option<String>| text.as_deref().map(Moment::from_rfc3339).transpose();
        let filter = SnapshotFilter {
            state: word("state", self.state)?,
            kind: word("kind", self.kind)?,
            keywords: self.keyword,
            created_after: moment(self.created_after)?,
            created_before: moment(self.created_before)?,
            ..SnapshotFilter::default()
        };
        let (vm, account, domain) = (self.vm, self.account, self.domain);
        Ok((SnapshotQuery { vm, account, domain, filter }, page))
    }
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
    /// Get in line behind what holds the virtual machine, instead of being refused.
    #[serde(default)]
    queue: bool,
}

/// How to revert.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Reverting {
    /// Answer what would be lost, and do nothing.
    #[serde(default)]
    dry_run: bool,
    /// Answer when the operation has ended, or after this time, such as `30s`.
    wait: Option<String>,
    /// Get in line behind what holds the virtual machine, instead of being refused.
    #[serde(default)]
    queue: bool,
}

/// Lists snapshots.
#[utoipa::path(get, path = "/v1/snapshots", tag = "snapshots", params(Filters),
    responses((status = 200, body = List<Snapshot>), (status = "default", body = Problem)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    By(caller): By,
    Params(filters): Params<Filters>,
) -> Reply<Listed<Snapshot>> {
    let (query, page) = filters.read()?;
    Ok(Listed(app.snapshots(&caller, query, &page).await?))
}

/// Lists the snapshots of a virtual machine.
#[utoipa::path(get, path = "/v1/vms/{vm}/snapshots", tag = "snapshots",
    params(("vm" = String, Path, description = "Name or id"), Filters),
    responses((status = 200, body = List<Snapshot>), (status = "default", body = Problem)))]
pub(super) async fn list_of(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path(vm): Path<String>,
    Params(filters): Params<Filters>,
) -> Reply<Listed<Snapshot>> {
    let (query, page) = filters.read()?;
    let query = SnapshotQuery { vm: Some(vm), ..query };
    Ok(Listed(app.snapshots(&caller, query, &page).await?))
}

/// Takes a snapshot.
#[utoipa::path(post, path = "/v1/vms/{vm}/snapshots", tag = "snapshots", request_body = NewSnapshot,
    params(("vm" = String, Path, description = "Name or id"), Acting),
    responses((status = 202, body = Operation), (status = 200, body = Operation),
              (status = "default", body = Problem)))]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path(vm): Path<String>,
    Params(acting): Params<Acting>,
    Body(new): Body<NewSnapshot>,
) -> Reply<Response> {
    let (how, patience) = acting.read()?;
    let accepted = app.create_snapshot(&caller, how, &vm, new).await?;
    wait(&app, &caller, accepted, patience).await
}

/// Deletes every snapshot of a virtual machine.
#[utoipa::path(delete, path = "/v1/vms/{vm}/snapshots", tag = "snapshots",
    params(("vm" = String, Path, description = "Name or id"), Deleting),
    responses((status = 202, body = Operation), (status = 200, body = DoneOrPlanned),
              (status = "default", body = Problem)))]
pub(super) async fn delete_all(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path(vm): Path<String>,
    Params(deleting): Params<Deleting>,
) -> Reply<Response> {
    if deleting.scope.is_some() {
        let refusal = Refusal::new(Code::InvalidRequest).detail("a scope needs a snapshot");
        return Err(refusal.into());
    }
    remove(&app, &caller, DeleteTarget::All(vm), deleting).await
}

/// Shows the snapshot tree of a virtual machine, with NOW in it.
#[utoipa::path(get, path = "/v1/vms/{vm}/tree", tag = "snapshots",
    params(("vm" = String, Path, description = "Name or id")),
    responses((status = 200, body = Tree), (status = "default", body = Problem)))]
pub(super) async fn tree(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path(vm): Path<String>,
) -> Reply<Json<Tree>> {
    Ok(Json(app.tree(&caller, &vm).await?))
}

/// Shows a snapshot.
#[utoipa::path(get, path = "/v1/snapshots/{id}", tag = "snapshots",
    params(("id" = String, Path, description = "Id")),
    responses((status = 200, body = Snapshot), (status = "default", body = Problem)))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path(text): Path<String>,
) -> Reply<Json<Snapshot>> {
    Ok(Json(app.snapshot(&caller, id(&text, Code::UnknownSnapshot)?).await?))
}

/// Changes name and description of a snapshot.
#[utoipa::path(patch, path = "/v1/snapshots/{id}", tag = "snapshots", request_body = EditSnapshot,
    params(("id" = String, Path, description = "Id")),
    responses((status = 200, body = Snapshot), (status = "default", body = Problem)))]
pub(super) async fn edit(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path(text): Path<String>,
    Body(edit): Body<EditSnapshot>,
) -> Reply<Json<Snapshot>> {
    Ok(Json(app.edit_snapshot(&caller, id(&text, Code::UnknownSnapshot)?, edit).await?))
}

/// Deletes a snapshot, or what descends from it.
#[utoipa::path(delete, path = "/v1/snapshots/{id}", tag = "snapshots",
    params(("id" = String, Path, description = "Id"), Deleting),
    responses((status = 202, body = Operation), (status = 200, body = DoneOrPlanned),
              (status = "default", body = Problem)))]
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    By(caller): By,
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
    remove(&app, &caller, DeleteTarget::Of(scope), deleting).await
}

async fn remove(
    app: &Arc<App>,
    caller: &Caller,
    target: DeleteTarget,
    deleting: Deleting,
) -> Reply<Response> {
    if deleting.dry_run {
        return Ok(Json(app.plan_delete(caller, &target).await?).into_response());
    }
    let acting = Acting { wait: deleting.wait, queue: deleting.queue, force: false };
    let (how, patience) = acting.read()?;
    let accepted = app.delete_snapshots(caller, how, &target).await?;
    wait(app, caller, accepted, patience).await
}

/// Goes back to a snapshot.
#[utoipa::path(post, path = "/v1/snapshots/{id}/revert", tag = "snapshots", request_body = Revert,
    params(("id" = String, Path, description = "Id"), Reverting),
    responses((status = 202, body = Operation), (status = 200, body = DoneOrPlanned),
              (status = "default", body = Problem)))]
pub(super) async fn revert(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path(text): Path<String>,
    Params(reverting): Params<Reverting>,
    Body(revert): Body<Revert>,
) -> Reply<Response> {
    let id = id(&text, Code::UnknownSnapshot)?;
    if reverting.dry_run {
        return Ok(Json(app.plan_revert(&caller, id).await?).into_response());
    }
    let acting = Acting { wait: reverting.wait, queue: reverting.queue, force: false };
    let (how, patience) = acting.read()?;
    let accepted = app.revert(&caller, how, id, &revert).await?;
    wait(&app, &caller, accepted, patience).await
}

/// Proves that a snapshot is whole: its memory is loaded beside the virtual machine, its disks are
/// checked.
#[utoipa::path(post, path = "/v1/snapshots/{id}/verify", tag = "snapshots",
    params(("id" = String, Path, description = "Id"), Acting),
    responses((status = 202, body = Operation), (status = 200, body = Operation),
              (status = "default", body = Problem)))]
pub(super) async fn verify(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path(text): Path<String>,
    Params(acting): Params<Acting>,
) -> Reply<Response> {
    let (how, patience) = acting.read()?;
    let accepted = app.verify_snapshot(&caller, how, id(&text, Code::UnknownSnapshot)?).await?;
    wait(&app, &caller, accepted, patience).await
}

/// Writes a snapshot to a folder of the pool's `.exports`: a qcow2 file for each disk, its memory,
/// and a script that starts plain QEMU from there.
#[utoipa::path(post, path = "/v1/snapshots/{id}/export", tag = "snapshots", request_body = Export,
    params(("id" = String, Path, description = "Id"), Acting),
    responses((status = 202, body = Operation), (status = 200, body = Operation),
              (status = "default", body = Problem)))]
pub(super) async fn export(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path(text): Path<String>,
    Params(acting): Params<Acting>,
    Body(export): Body<Export>,
) -> Reply<Response> {
    let (how, patience) = acting.read()?;
    let id = id(&text, Code::UnknownSnapshot)?;
    let accepted = app.export_snapshot(&caller, how, id, export).await?;
    wait(&app, &caller, accepted, patience).await
}
