//! `/v1/vms/{vm}/console`

use super::extract::{By, Path, Reply, bytes};
use crate::app::App;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use std::convert::Infallible;
use std::sync::Arc;
use tintype_wire::rest::Problem;
use tokio_stream::wrappers::ReceiverStream;

/// Follows the console: the last 256 KiB first, then live.
#[utoipa::path(get, path = "/v1/vms/{vm}/console", tag = "console",
    params(("vm" = String, Path, description = "Name or id")),
    responses((status = 200, content_type = "application/octet-stream"),
              (status = "default", body = Problem)))]
pub(super) async fn follow(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path(vm): Path<String>,
) -> Reply<Response> {
    let id = app.console_of(&caller, &vm).await?;
    let shut_out = Arc::clone(&app).until_shut_out(caller);
    let said = ReceiverStream::new(app.agent().console(id).await).take_until(shut_out);
    let said = said.map(Ok::<_, Infallible>);
    let kind = [(CONTENT_TYPE, "application/octet-stream")];
    Ok((kind, Body::from_stream(said)).into_response())
}

/// Types the body into the console.
#[utoipa::path(post, path = "/v1/vms/{vm}/console", tag = "console",
    request_body(content_type = "application/octet-stream"),
    params(("vm" = String, Path, description = "Name or id")),
    responses((status = 204), (status = "default", body = Problem)))]
pub(super) async fn type_in(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path(vm): Path<String>,
    request: Request,
) -> Reply<StatusCode> {
    let id = app.console_of(&caller, &vm).await?;
    let typed = bytes(request, &app).await?;
    app.agent().type_in(id, typed.to_vec()).await?;
    Ok(StatusCode::NO_CONTENT)
}
