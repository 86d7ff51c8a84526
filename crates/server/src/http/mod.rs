//! REST: decode, call the app, answer. Nothing is decided here.

mod account;
mod console;
mod database;
mod disk;
mod domain;
mod event;
mod extract;
mod gate;
mod host;
mod idempotency;
mod metrics;
mod openapi;
mod operation;
mod profile;
mod snapshot;
mod token;
mod user;
mod vm;

pub use gate::Gate;
pub use openapi::openapi_json;

use crate::app::App;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::extract::Request;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, patch, post};
use extract::No;
use std::sync::Arc;
use tintype_model::Refusal;
use tintype_model::refusal::Code;

/// Largest body of a request.
const BODY_MOST: usize = 1 << 20;

/// Every address there is, behind the gate.
pub fn router(app: Arc<App>, gate: Arc<Gate>) -> Router {
    metrics::begin();
    machines()
        .merge(people())
        .merge(hosts())
        .route("/v1/events", get(event::list))
        .route("/openapi.json", get(openapi::document))
        .route_layer(from_fn(metrics::count))
        .fallback(async || No::from(Refusal::new(Code::UnknownAddress)))
        .method_not_allowed_fallback(async || No::from(Refusal::new(Code::MethodNotAllowed)))
        .layer(from_fn_with_state(Arc::clone(&app), idempotency::remember))
        .layer(DefaultBodyLimit::max(BODY_MOST))
        .layer(from_fn(gate::too_large))
        .layer(from_fn_with_state((gate, Arc::clone(&app)), gate::check))
        .layer(from_fn(see_through))
        .with_state(app)
}

fn machines() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/vms", get(vm::list).post(vm::create))
        .route("/v1/vms/{vm}", get(vm::show).patch(vm::edit).delete(vm::delete))
        .route("/v1/vms/{vm}/start", post(vm::start))
        .route("/v1/vms/{vm}/stop", post(vm::stop))
        .route("/v1/vms/{vm}/clone", post(vm::clone))
        .route("/v1/vms/{vm}/disks", get(disk::list).post(disk::attach))
        .route("/v1/vms/{vm}/disks/{disk}", patch(disk::resize).delete(disk::detach))
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
        .route("/v1/snapshots/{id}/verify", post(snapshot::verify))
        .route("/v1/snapshots/{id}/export", post(snapshot::export))
        .route("/v1/operations", get(operation::list))
        .route("/v1/operations/{id}", get(operation::show))
        .route("/v1/operations/{id}/cancel", post(operation::cancel))
}

fn people() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/domains", get(domain::list).post(domain::create))
        .route("/v1/domains/{id}", get(domain::show).delete(domain::delete))
        .route("/v1/accounts", get(account::list).post(account::create))
        .route("/v1/accounts/{id}", get(account::show).patch(account::edit).delete(account::delete))
        .route("/v1/users", get(user::list).post(user::create))
        .route("/v1/users/{id}", get(user::show).patch(user::edit).delete(user::delete))
        .route("/v1/tokens", get(token::list).post(token::create))
        .route("/v1/tokens/{id}", delete(token::delete))
        .route(gate::SIGN_IN, post(token::sign_in))
        .route("/v1/profiles", get(profile::list).post(profile::create))
        .route("/v1/profiles/{id}", get(profile::show).patch(profile::edit).delete(profile::delete))
}

fn hosts() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/hosts", get(host::list))
        .route("/v1/hosts/{id}", get(host::show).patch(host::edit))
        .route("/v1/hosts/{id}/check", post(host::check))
        .route("/v1/hosts/{id}/repair", post(host::repair))
        .route("/v1/hosts/{id}/adopt", post(host::adopt))
        .route("/v1/hypervisors", get(host::hypervisors))
        .route("/v1/hypervisors/{kind}", patch(host::edit_hypervisor))
        .route("/v1/pools", get(host::pools))
        .route("/v1/pools/{id}", get(host::pool).patch(host::edit_pool))
        .route("/v1/database", get(database::save))
        .route("/metrics", get(metrics::show))
        .route(gate::HEALTH, get(host::health))
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
