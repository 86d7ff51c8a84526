//! `/v1/tokens` and `/v1/sign-in`

use super::extract::{Body, By, Listed, Paging, Params, Path, Reply, created, gone, id};
use crate::app::App;
use axum::Extension;
use axum::extract::{ConnectInfo, State};
use axum::response::Response;
use std::net::SocketAddr;
use std::sync::Arc;
use tintype_model::refusal::Code;
use tintype_wire::rest::{List, MadeToken, NewToken, Problem, SignIn, Token};

/// Lists the caller's tokens.
#[utoipa::path(get, path = "/v1/tokens", tag = "tokens", params(Paging),
    responses((status = 200, body = List<Token>), (status = "default", body = Problem)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    By(caller): By,
    Params(paging): Params<Paging>,
) -> Reply<Listed<Token>> {
    Ok(Listed(app.tokens(&caller, &paging.page()?).await?))
}

/// Makes a token; what it is shown by is told now and never again.
#[utoipa::path(post, path = "/v1/tokens", tag = "tokens", request_body = NewToken,
    responses((status = 201, body = MadeToken), (status = "default", body = Problem)))]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    By(caller): By,
    Body(new): Body<NewToken>,
) -> Reply<Response> {
    let made = app.create_token(&caller, new).await?;
    Ok(created(&format!("/v1/tokens/{}", made.token.id), &made))
}

/// Revokes a token.
#[utoipa::path(delete, path = "/v1/tokens/{id}", tag = "tokens",
    params(("id" = String, Path, description = "Id")),
    responses((status = 204), (status = "default", body = Problem)))]
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path(text): Path<String>,
) -> Reply<Response> {
    app.delete_token(&caller, id(&text, Code::UnknownToken)?).await?;
    Ok(gone())
}

/// Signs in by password, for a token that is good for a day; no token is needed.
#[utoipa::path(post, path = "/v1/sign-in", tag = "tokens", security(()), request_body = SignIn,
    responses((status = 201, body = MadeToken), (status = "default", body = Problem)))]
pub(super) async fn sign_in(
    State(app): State<Arc<App>>,
    from: Option<Extension<ConnectInfo<SocketAddr>>>,
    Body(sign_in): Body<SignIn>,
) -> Reply<Response> {
    let address = from.map(|Extension(ConnectInfo(address))| address.ip());
    let made = app.sign_in(address, sign_in).await?;
    Ok(created(&format!("/v1/tokens/{}", made.token.id), &made))
}
