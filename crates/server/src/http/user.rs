//! `/v1/users`

use super::extract::{Body, By, Listed, Paging, Params, Path, Reply, created, gone};
use crate::app::App;
use axum::Json;
use axum::extract::State;
use axum::response::Response;
use std::sync::Arc;
use tintype_wire::rest::{EditUser, List, NewUser, Problem, User};

/// Lists users.
#[utoipa::path(get, path = "/v1/users", tag = "users", params(Paging),
    responses((status = 200, body = List<User>), (status = "default", body = Problem)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    By(caller): By,
    Params(paging): Params<Paging>,
) -> Reply<Listed<User>> {
    Ok(Listed(app.users(&caller, &paging.page()?).await?))
}

/// Creates a user.
#[utoipa::path(post, path = "/v1/users", tag = "users", request_body = NewUser,
    responses((status = 201, body = User), (status = "default", body = Problem)))]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    By(caller): By,
    Body(new): Body<NewUser>,
) -> Reply<Response> {
    let made = app.create_user(&caller, new).await?;
    Ok(created(&format!("/v1/users/{}", made.id), &made))
}

/// Shows a user.
#[utoipa::path(get, path = "/v1/users/{id}", tag = "users",
    params(("id" = String, Path, description = "Name or id")),
    responses((status = 200, body = User), (status = "default", body = Problem)))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path(id): Path<String>,
) -> Reply<Json<User>> {
    Ok(Json(app.user(&caller, &id).await?))
}

/// Changes a user.
#[utoipa::path(patch, path = "/v1/users/{id}", tag = "users", request_body = EditUser,
    params(("id" = String, Path, description = "Name or id")),
    responses((status = 200, body = User), (status = "default", body = Problem)))]
pub(super) async fn edit(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path(id): Path<String>,
    Body(edit): Body<EditUser>,
) -> Reply<Json<User>> {
    Ok(Json(app.edit_user(&caller, &id, edit).await?))
}

/// Deletes a user.
#[utoipa::path(delete, path = "/v1/users/{id}", tag = "users",
    params(("id" = String, Path, description = "Name or id")),
    responses((status = 204), (status = "default", body = Problem)))]
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path(id): Path<String>,
) -> Reply<Response> {
    app.delete_user(&caller, &id).await?;
    Ok(gone())
}
