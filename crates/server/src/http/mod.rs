//! REST: decode, call the app, answer. Nothing is decided here.

mod console;
mod extract;
mod gate;
mod host;
mod idempotency;
mod openapi;
mod operation;
mod snapshot;
mod vm;

pub use gate::Gate;
pub use openapi::openapi_json;

use crate::app::App;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::extract::Request;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use extract::No;
use std::sync::Arc;
use tintype_model::Refusal;
use tintype_model::refusal::Code;

/// Largest body of a request.
const BODY_MOST: usize = 1 << 20;

/// Every address there is, behind the gate.
pub fn router(app: Arc<App>, gate: Arc<Gate>) -> Router {
    Router::new()
        .route("/v1/vms", get(vm::list).post(vm::create))
        .route("/v1/vms/{vm}", get(vm::show).delete(vm::delete))
        .route("/v1/vms/{vm}/start", post(vm::start))
        .route("/v1/vms/{vm}/stop", post(vm::stop))
        .route("/v1/vms/{vm}/disks", get(vm::disks))
        .route("/v1/vms/{vm}/console", get(console::follow).post(console::type_in))
        .route(
            "/v1/vms/{vm}/snapshots",
            get(snapshot::list_of).post(snapshot::create).delete(snapshot::delete_all),
        )
        .route("/v1/vms/{vm}/tree", get(snapshot::tree))
        .route("/v1/snapshots", get(snapshot::list))
        .route(
            "/v1/snapshots/{id}",
            get(snapshot::show).patch(snapshot::edit).delete(snapshot::delete),
        )
        .route("/v1/snapshots/{id}/revert", post(snapshot::revert))
        .route("/v1/operations", get(operation::list))
        .route("/v1/operations/{id}", get(operation::show))
        .route("/v1/operations/{id}/cancel", post(operation::cancel))
        .route("/v1/hosts", get(host::list))
        .route("/v1/hosts/{id}", get(host::show))
        .route("/v1/pools", get(host::pools))
        .route("/v1/pools/{id}", get(host::pool))
        .route("/health", get(host::health))
        .route("/openapi.json", get(openapi::document))
        .fallback(async || No::from(Refusal::new(Code::UnknownAddress)))
        .method_not_allowed_fallback(async || No::from(Refusal::new(Code::MethodNotAllowed)))
        .layer(from_fn_with_state(Arc::clone(&app), idempotency::remember))
        .layer(DefaultBodyLimit::max(BODY_MOST))
        .layer(from_fn(gate::too_large))
        .layer(from_fn_with_state(gate, gate::check))
        .layer(from_fn(see_through))
        .with_state(app)
}

/// Sees a request through though the client may go: what it has begun must not stay half done.
async fn see_through(request: Request, next: Next) -> Response {
    match tokio::spawn(next.run(request)).await {
        Ok(response) => response,
        Err(error) => {
            No::from(Refusal::new(Code::Internal).detail(error.to_string())).into_response()
        }
    }
}
