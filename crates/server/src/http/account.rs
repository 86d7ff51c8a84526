//! `/v1/accounts`

use super::extract::{Body, By, Listed, Paging, Params, Path, Reply, created, gone};
use crate::app::App;
use axum::Json;
use axum::extract::State;
use axum::response::Response;
use std::sync::Arc;
use tintype_wire::rest::{Account, EditAccount, List, NewAccount, Problem};

/// Lists accounts.
#[utoipa::path(get, path = "/v1/accounts", tag = "accounts", params(Paging),
    responses((status = 200, body = List<Account>), (status = "default", body = Problem)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    By(caller): By,
    Params(paging): Params<Paging>,
) -> Reply<Listed<Account>> {
    Ok(Listed(app.accounts(&caller, &paging.page()?).await?))
}

/// Creates an account.
#[utoipa::path(post, path = "/v1/accounts", tag = "accounts", request_body = NewAccount,
    responses((status = 201, body = Account), (status = "default", body = Problem)))]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    By(caller): By,
    Body(new): Body<NewAccount>,
) -> Reply<Response> {
    let made = app.create_account(&caller, new).await?;
    Ok(created(&format!("/v1/accounts/{}", made.id), &made))
}

/// Shows an account.
#[utoipa::path(get, path = "/v1/accounts/{id}", tag = "accounts",
    params(("id" = String, Path, description = "Name or id")),
    responses((status = 200, body = Account), (status = "default", body = Problem)))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path(id): Path<String>,
) -> Reply<Json<Account>> {
    Ok(Json(app.account(&caller, &id).await?))
}

/// Changes an account.
#[utoipa::path(patch, path = "/v1/accounts/{id}", tag = "accounts", request_body = EditAccount,
    params(("id" = String, Path, description = "Name or id")),
    responses((status = 200, body = Account), (status = "default", body = Problem)))]
pub(super) async fn edit(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path(id): Path<String>,
    Body(edit): Body<EditAccount>,
) -> Reply<Json<Account>> {
    Ok(Json(app.edit_account(&caller, &id, edit).await?))
}

/// Deletes an account.
#[utoipa::path(delete, path = "/v1/accounts/{id}", tag = "accounts",
    params(("id" = String, Path, description = "Name or id")),
    responses((status = 204), (status = "default", body = Problem)))]
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path(id): Path<String>,
) -> Reply<Response> {
    app.delete_account(&caller, &id).await?;
    Ok(gone())
}
