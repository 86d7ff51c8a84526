//! `/v1/vms`

use super::extract::{Body, Params, Reply, duration, operation, page};
use crate::app::App;
use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use serde::Deserialize;
use std::sync::Arc;
use tintype_model::OperationId;
use tintype_wire::rest::{Disk, List, NewVm, Operation, Problem, Stop, Vm};
use utoipa::IntoParams;

/// A page of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Paging {
    /// What an earlier page said is next.
    after: Option<String>,
    /// Most items on the page: 1 to 1000, 100 if not given.
    limit: Option<u32>,
}

/// How long to wait.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Waiting {
    /// Answer when the operation has ended, or after this time, such as `30s`.
    pub(super) wait: Option<String>,
}

/// Waits for an operation as long as the caller wants, and answers with it.
pub(super) async fn wait(app: &App, accepted: Operation, waiting: &Waiting) -> Reply<Response> {
    let patience = duration(waiting.wait.as_deref())?;
    Ok(operation(app.operation(OperationId(accepted.id), patience).await?))
}

/// Lists virtual machines.
#[utoipa::path(get, path = "/v1/vms", tag = "vms", params(Paging),
    responses((status = 200, body = List<Vm>), (status = "default", body = Problem)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Params(paging): Params<Paging>,
) -> Reply<Json<List<Vm>>> {
    Ok(Json(app.vms(page(paging.after.as_deref(), paging.limit)?).await?))
}

/// Creates a virtual machine.
#[utoipa::path(post, path = "/v1/vms", tag = "vms", request_body = NewVm, params(Waiting),
    responses((status = 202, body = Operation), (status = 200, body = Operation),
              (status = "default", body = Problem)))]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    Params(waiting): Params<Waiting>,
    Body(new): Body<NewVm>,
) -> Reply<Response> {
    duration(waiting.wait.as_deref())?;
    let accepted = app.create_vm(new).await?;
    wait(&app, accepted, &waiting).await
}

/// Shows a virtual machine.
#[utoipa::path(get, path = "/v1/vms/{vm}", tag = "vms",
    params(("vm" = String, Path, description = "Name or id")),
    responses((status = 200, body = Vm), (status = "default", body = Problem)))]
pub(super) async fn show(State(app): State<Arc<App>>, Path(vm): Path<String>) -> Reply<Json<Vm>> {
    Ok(Json(app.vm(&vm).await?))
}

/// Lists the disks of a virtual machine.
#[utoipa::path(get, path = "/v1/vms/{vm}/disks", tag = "vms",
    params(("vm" = String, Path, description = "Name or id")),
    responses((status = 200, body = List<Disk>), (status = "default", body = Problem)))]
pub(super) async fn disks(
    State(app): State<Arc<App>>,
    Path(vm): Path<String>,
) -> Reply<Json<List<Disk>>> {
    Ok(Json(List { items: app.vm(&vm).await?.disks, next: None }))
}

/// Deletes a virtual machine with its snapshots.
#[utoipa::path(delete, path = "/v1/vms/{vm}", tag = "vms",
    params(("vm" = String, Path, description = "Name or id"), Waiting),
    responses((status = 202, body = Operation), (status = 200, body = Operation),
              (status = "default", body = Problem)))]
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    Path(vm): Path<String>,
    Params(waiting): Params<Waiting>,
) -> Reply<Response> {
    duration(waiting.wait.as_deref())?;
    let accepted = app.delete_vm(&vm).await?;
    wait(&app, accepted, &waiting).await
}

/// Boots a virtual machine.
#[utoipa::path(post, path = "/v1/vms/{vm}/start", tag = "vms",
    params(("vm" = String, Path, description = "Name or id"), Waiting),
    responses((status = 202, body = Operation), (status = 200, body = Operation),
              (status = "default", body = Problem)))]
pub(super) async fn start(
    State(app): State<Arc<App>>,
    Path(vm): Path<String>,
    Params(waiting): Params<Waiting>,
) -> Reply<Response> {
    duration(waiting.wait.as_deref())?;
    let accepted = app.start_vm(&vm).await?;
    wait(&app, accepted, &waiting).await
}

/// Shuts a virtual machine down, or cuts its power.
#[utoipa::path(post, path = "/v1/vms/{vm}/stop", tag = "vms", request_body = Stop,
    params(("vm" = String, Path, description = "Name or id"), Waiting),
    responses((status = 202, body = Operation), (status = 200, body = Operation),
              (status = "default", body = Problem)))]
pub(super) async fn stop(
    State(app): State<Arc<App>>,
    Path(vm): Path<String>,
    Params(waiting): Params<Waiting>,
    Body(stop): Body<Stop>,
) -> Reply<Response> {
    duration(waiting.wait.as_deref())?;
    let accepted = app.stop_vm(&vm, stop.force).await?;
    wait(&app, accepted, &waiting).await
}
