//! `/v1/vms`

use super::extract::{
    Body, By, Listed, Params, Path, Reply, duration, operation, order, page, word,
};
use super::openapi::{DoneOrPlanned, EditedOrPlanned};
use crate::app::{App, Edited, How, VmQuery};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use tintype_model::OperationId;
use tintype_model::access::Caller;
use tintype_store::VmFilter;
use tintype_wire::rest::{CloneVm, EditVm, List, NewVm, Operation, Problem, Stop, Vm};
use utoipa::IntoParams;

/// Which virtual machines to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Filters {
    /// Of this account, by name or id.
    account: Option<String>,
    /// Of this domain and those beneath, by name or id.
    domain: Option<String>,
    /// In this state.
    state: Option<String>,
    /// With this in the name.
    keyword: Option<String>,
    /// `created` (if not given), `-created`, `name` or `-name`.
    sort: Option<String>,
    /// What an earlier page said is next.
    after: Option<String>,
    /// Most items on the page: 1 to 1000, 100 if not given.
    limit: Option<u32>,
}

/// How something is to be done.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Acting {
    /// Answer when the operation has ended, or after this time, such as `30s`.
    pub(super) wait: Option<String>,
    /// Get in line behind what holds the virtual machine, instead of being refused.
    #[serde(default)]
    pub(super) queue: bool,
    /// Pass limits and quotas; an administrator may say so, and it is recorded.
    #[serde(default)]
    pub(super) force: bool,
}

/// How something that removes data is to be done.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Removing {
    /// Answer what would be done, and do nothing.
    #[serde(default)]
    pub(super) dry_run: bool,
    /// Answer when the operation has ended, or after this time, such as `30s`.
    pub(super) wait: Option<String>,
    /// Get in line behind what holds the virtual machine, instead of being refused.
    #[serde(default)]
    pub(super) queue: bool,
}

impl Removing {
    pub(super) fn acting(self) -> Acting {
        Acting { wait: self.wait, queue: self.queue, force: false }
    }
}

impl Acting {
    /// How it is asked for, and how long to wait; looked at before anything is done.
    pub(super) fn read(&self) -> Reply<(How, Duration)> {
        let how = How { queue: self.queue, force: self.force };
        Ok((how, duration(self.wait.as_deref())?))
    }
}

/// Waits for an operation as long as the caller wants, and answers with it.
pub(super) async fn wait(
    app: &App,
    caller: &Caller,
    accepted: Operation,
    patience: Duration,
) -> Reply<Response> {
    if patience.is_zero() {
        return Ok(operation(accepted));
    }
    let seen = app.operation(caller, OperationId(accepted.id), patience).await;
    // An operation that has removed its machine is shown as it was accepted last.
    Ok(operation(seen.unwrap_or(accepted)))
}

/// Lists virtual machines.
#[utoipa::path(get, path = "/v1/vms", tag = "vms", params(Filters),
    responses((status = 200, body = List<Vm>), (status = "default", body = Problem)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    By(caller): By,
    Params(filters): Params<Filters>,
) -> Reply<Listed<Vm>> {
    let sort = order(filters.sort.as_deref())?;
    let page = page(sort, filters.after.as_deref(), filters.limit)?;
    let state = word("state", filters.state)?;
    let filter = VmFilter { state, keyword: filters.keyword, ..VmFilter::default() };
    let query = VmQuery { account: filters.account, domain: filters.domain, filter };
    Ok(Listed(app.vms(&caller, query, &page).await?))
}

/// Creates a virtual machine.
#[utoipa::path(post, path = "/v1/vms", tag = "vms", request_body = NewVm, params(Acting),
    responses((status = 202, body = Operation), (status = 200, body = Operation),
              (status = "default", body = Problem)))]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    By(caller): By,
    Params(acting): Params<Acting>,
    Body(new): Body<NewVm>,
) -> Reply<Response> {
    let (how, patience) = acting.read()?;
    let accepted = app.create_vm(&caller, how, new).await?;
    wait(&app, &caller, accepted, patience).await
}

/// Shows a virtual machine.
#[utoipa::path(get, path = "/v1/vms/{vm}", tag = "vms",
    params(("vm" = String, Path, description = "Name or id")),
    responses((status = 200, body = Vm), (status = "default", body = Problem)))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path(vm): Path<String>,
) -> Reply<Json<Vm>> {
    Ok(Json(app.vm(&caller, &vm).await?))
}

/// Changes a virtual machine: its name and settings at once; other hardware at once, or by an
/// operation where snapshots lose their memory for it.
#[utoipa::path(patch, path = "/v1/vms/{vm}", tag = "vms", request_body = EditVm,
    params(("vm" = String, Path, description = "Name or id"), Removing),
    responses((status = 202, body = Operation), (status = 200, body = EditedOrPlanned),
              (status = "default", body = Problem)))]
pub(super) async fn edit(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path(vm): Path<String>,
    Params(removing): Params<Removing>,
    Body(edit): Body<EditVm>,
) -> Reply<Response> {
    if removing.dry_run {
        return Ok(Json(app.plan_edit_vm(&caller, &vm, &edit).await?).into_response());
    }
    let (how, patience) = removing.acting().read()?;
    match app.edit_vm(&caller, how, &vm, edit).await? {
        Edited::AtOnce(vm) => Ok(Json(*vm).into_response()),
        Edited::Accepted(accepted) => wait(&app, &caller, *accepted, patience).await,
    }
}

/// Deletes a virtual machine with its snapshots.
#[utoipa::path(delete, path = "/v1/vms/{vm}", tag = "vms",
    params(("vm" = String, Path, description = "Name or id"), Removing),
    responses((status = 202, body = Operation), (status = 200, body = DoneOrPlanned),
              (status = "default", body = Problem)))]
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path(vm): Path<String>,
    Params(removing): Params<Removing>,
) -> Reply<Response> {
    if removing.dry_run {
        return Ok(Json(app.plan_delete_vm(&caller, &vm).await?).into_response());
    }
    let (how, patience) = removing.acting().read()?;
    let accepted = app.delete_vm(&caller, how, &vm).await?;
    wait(&app, &caller, accepted, patience).await
}

/// Boots a virtual machine.
#[utoipa::path(post, path = "/v1/vms/{vm}/start", tag = "vms",
    params(("vm" = String, Path, description = "Name or id"), Acting),
    responses((status = 202, body = Operation), (status = 200, body = Operation),
              (status = "default", body = Problem)))]
pub(super) async fn start(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path(vm): Path<String>,
    Params(acting): Params<Acting>,
) -> Reply<Response> {
    let (how, patience) = acting.read()?;
    let accepted = app.start_vm(&caller, how, &vm).await?;
    wait(&app, &caller, accepted, patience).await
}

/// Shuts a virtual machine down, or cuts its power.
#[utoipa::path(post, path = "/v1/vms/{vm}/stop", tag = "vms", request_body = Stop,
    params(("vm" = String, Path, description = "Name or id"), Acting),
    responses((status = 202, body = Operation), (status = 200, body = Operation),
              (status = "default", body = Problem)))]
pub(super) async fn stop(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path(vm): Path<String>,
    Params(acting): Params<Acting>,
    Body(stop): Body<Stop>,
) -> Reply<Response> {
    let (how, patience) = acting.read()?;
    let accepted = app.stop_vm(&caller, how, &vm, stop.force).await?;
    wait(&app, &caller, accepted, patience).await
}

/// Makes another virtual machine of this one's disks, as they are or as a snapshot holds them.
#[utoipa::path(post, path = "/v1/vms/{vm}/clone", tag = "vms", request_body = CloneVm,
    params(("vm" = String, Path, description = "Name or id"), Acting),
    responses((status = 202, body = Operation), (status = 200, body = Operation),
              (status = "default", body = Problem)))]
pub(super) async fn clone(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path(vm): Path<String>,
    Params(acting): Params<Acting>,
    Body(clone): Body<CloneVm>,
) -> Reply<Response> {
    let (how, patience) = acting.read()?;
    let accepted = app.clone_vm(&caller, how, &vm, clone).await?;
    wait(&app, &caller, accepted, patience).await
}
