//! `/v1/profiles`

use super::extract::{Body, By, Listed, Paging, Params, Path, Reply, created, gone};
use crate::app::App;
use axum::Json;
use axum::extract::State;
use axum::response::Response;
use std::sync::Arc;
use tintype_wire::rest::{EditProfile, List, NewProfile, Problem, Profile};

/// Lists profiles.
#[utoipa::path(get, path = "/v1/profiles", tag = "profiles", params(Paging),
    responses((status = 200, body = List<Profile>), (status = "default", body = Problem)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    By(caller): By,
    Params(paging): Params<Paging>,
) -> Reply<Listed<Profile>> {
    Ok(Listed(app.profiles(&caller, &paging.page()?).await?))
}

/// Creates a profile.
#[utoipa::path(post, path = "/v1/profiles", tag = "profiles", request_body = NewProfile,
    responses((status = 201, body = Profile), (status = "default", body = Problem)))]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    By(caller): By,
    Body(new): Body<NewProfile>,
) -> Reply<Response> {
    let made = app.create_profile(&caller, new).await?;
    Ok(created(&format!("/v1/profiles/{}", made.id), &made))
}

/// Shows a profile.
#[utoipa::path(get, path = "/v1/profiles/{id}", tag = "profiles",
    params(("id" = String, Path, description = "Name or id")),
    responses((status = 200, body = Profile), (status = "default", body = Problem)))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path(id): Path<String>,
) -> Reply<Json<Profile>> {
    Ok(Json(app.profile(&caller, &id).await?))
}

/// Changes a profile.
#[utoipa::path(patch, path = "/v1/profiles/{id}", tag = "profiles", request_body = EditProfile,
    params(("id" = String, Path, description = "Name or id")),
    responses((status = 200, body = Profile), (status = "default", body = Problem)))]
pub(super) async fn edit(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path(id): Path<String>,
    Body(edit): Body<EditProfile>,
) -> Reply<Json<Profile>> {
    Ok(Json(app.edit_profile(&caller, &id, edit).await?))
}

/// Deletes a profile.
#[utoipa::path(delete, path = "/v1/profiles/{id}", tag = "profiles",
    params(("id" = String, Path, description = "Name or id")),
    responses((status = 204), (status = "default", body = Problem)))]
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path(id): Path<String>,
) -> Reply<Response> {
    app.delete_profile(&caller, &id).await?;
    Ok(gone())
}
