//! `/v1/vms/{vm}/disks`

use super::extract::{Body, By, Listed, Params, Path, Reply};
use super::openapi::DoneOrPlanned;
use super::vm::{Acting, Removing, wait};
use crate::app::App;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use tintype_wire::rest::{Disk, EditDisk, List, NewDisk, Operation, Problem};

/// Lists the disks of a virtual machine.
#[utoipa::path(get, path = "/v1/vms/{vm}/disks", tag = "disks",
    params(("vm" = String, Path, description = "Name or id")),
    responses((status = 200, body = List<Disk>), (status = "default", body = Problem)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path(vm): Path<String>,
) -> Reply<Listed<Disk>> {
    Ok(Listed(List { items: app.disks(&caller, &vm).await?, next: None }))
}

/// Gives a virtual machine another disk.
#[utoipa::path(post, path = "/v1/vms/{vm}/disks", tag = "disks", request_body = NewDisk,
    params(("vm" = String, Path, description = "Name or id"), Acting),
    responses((status = 202, body = Operation), (status = 200, body = Operation),
              (status = "default", body = Problem)))]
pub(super) async fn attach(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path(vm): Path<String>,
    Params(acting): Params<Acting>,
    Body(disk): Body<NewDisk>,
) -> Reply<Response> {
    let (how, patience) = acting.read()?;
    let accepted = app.attach_disk(&caller, how, &vm, disk).await?;
    wait(&app, &caller, accepted, patience).await
}

/// Gives a disk another size.
#[utoipa::path(patch, path = "/v1/vms/{vm}/disks/{disk}", tag = "disks", request_body = EditDisk,
    params(("vm" = String, Path, description = "Name or id"),
           ("disk" = String, Path, description = "Name in the guest, or id"), Removing),
    responses((status = 202, body = Operation), (status = 200, body = DoneOrPlanned),
              (status = "default", body = Problem)))]
pub(super) async fn resize(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path((vm, disk)): Path<(String, String)>,
    Params(removing): Params<Removing>,
    Body(edit): Body<EditDisk>,
) -> Reply<Response> {
    let size = edit.size_bytes;
    if removing.dry_run {
        return Ok(Json(app.plan_resize_disk(&caller, &vm, &disk, size).await?).into_response());
    }
    let (how, patience) = removing.acting().read()?;
    let accepted = app.resize_disk(&caller, how, &vm, &disk, size).await?;
    wait(&app, &caller, accepted, patience).await
}

/// Takes a disk away, with what is on it.
#[utoipa::path(delete, path = "/v1/vms/{vm}/disks/{disk}", tag = "disks",
    params(("vm" = String, Path, description = "Name or id"),
           ("disk" = String, Path, description = "Name in the guest, or id"), Removing),
    responses((status = 202, body = Operation), (status = 200, body = DoneOrPlanned),
              (status = "default", body = Problem)))]
pub(super) async fn detach(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path((vm, disk)): Path<(String, String)>,
    Params(removing): Params<Removing>,
) -> Reply<Response> {
    if removing.dry_run {
        return Ok(Json(app.plan_detach_disk(&caller, &vm, &disk).await?).into_response());
    }
    let (how, patience) = removing.acting().read()?;
    let accepted = app.detach_disk(&caller, how, &vm, &disk).await?;
    wait(&app, &caller, accepted, patience).await
}
