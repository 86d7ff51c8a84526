//! The OpenAPI document, made from the handlers.

use super::{
    account, console, disk, domain, event, host, metrics, operation, profile, snapshot, token,
    user, vm,
};
use axum::Json;
use tintype_wire::rest::Problem;
use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

#[derive(OpenApi)]
#[openapi(
    info(title = "Tintype", description = "Virtual machines with a timeline"),
    modifiers(&Token),
    security(("token" = [])),
    components(schemas(Problem)),
    paths(
        vm::list, vm::create, vm::show, vm::edit, vm::delete, vm::start, vm::stop, vm::clone,
        disk::list, disk::attach, disk::resize, disk::detach,
        console::follow, console::type_in,
        snapshot::list, snapshot::list_of, snapshot::create, snapshot::delete_all, snapshot::tree,
        snapshot::show, snapshot::edit, snapshot::delete, snapshot::revert, snapshot::verify,
        operation::list, operation::show, operation::cancel,
        event::list,
        domain::list, domain::create, domain::show, domain::delete,
        account::list, account::create, account::show, account::edit, account::delete,
        user::list, user::create, user::show, user::edit, user::delete,
        token::list, token::create, token::delete, token::sign_in,
        profile::list, profile::create, profile::show, profile::edit, profile::delete,
        host::list, host::show, host::edit, host::hypervisors, host::edit_hypervisor,
        host::pools, host::pool, host::health, metrics::show,
        document,
    )
)]
struct Api;

struct Token;

impl Modify for Token {
    fn modify(&self, document: &mut Document) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// The document as text, as it is kept in `openapi/tintype.json`.
pub fn openapi_json() -> String {
    let mut text = Api::openapi().to_pretty_json().expect("the document is plain data");
    text.push('\n');
    text
}

/// The OpenAPI document.
#[utoipa::path(get, path = "/openapi.json", tag = "health",
    responses((status = 200, content_type = "application/json"),
              (status = "default", body = Problem)))]
pub(super) async fn document() -> Json<Document> {
    Json(Api::openapi())
}
