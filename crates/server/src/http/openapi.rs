//! The OpenAPI document, made from the handlers.

use super::extract::PROBLEM;
use super::{
    account, console, database, disk, domain, event, host, metrics, operation, profile, snapshot,
    token, user, vm,
};
use axum::Json;
use tintype_wire::rest::{Operation, Plan, Problem, Vm};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{OpenApi as Document, RefOr};
use utoipa::{Modify, OpenApi, ToSchema};

#[derive(OpenApi)]
#[openapi(
    info(title = "Tintype", description = "Virtual machines with a timeline"),
    modifiers(&Token, &Problems),
    security(("token" = [])),
    components(schemas(Problem)),
    paths(
        vm::list, vm::create, vm::show, vm::edit, vm::delete, vm::start, vm::stop, vm::clone,
        disk::list, disk::attach, disk::resize, disk::detach,
        console::follow, console::type_in,
        snapshot::list, snapshot::list_of, snapshot::create, snapshot::delete_all, snapshot::tree,
        snapshot::show, snapshot::edit, snapshot::delete, snapshot::revert, snapshot::verify,
        snapshot::export,
        operation::list, operation::show, operation::cancel,
        event::list,
        domain::list, domain::create, domain::show, domain::delete,
        account::list, account::create, account::show, account::edit, account::delete,
        user::list, user::create, user::show, user::edit, user::delete,
        token::list, token::create, token::delete, token::sign_in,
        profile::list, profile::create, profile::show, profile::edit, profile::delete,
        host::list, host::show, host::edit, host::hypervisors, host::edit_hypervisor,
        host::check, host::repair, host::adopt, host::pools, host::pool, host::edit_pool,
        host::health,
        database::save, metrics::show,
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

/// What is said when a request is refused is `application/problem+json` everywhere (RFC 9457).
struct Problems;

impl Modify for Problems {
    fn modify(&self, document: &mut Document) {
        for item in document.paths.paths.values_mut() {
            let operations = [&mut item.get, &mut item.post, &mut item.patch, &mut item.delete];
            for operation in operations.into_iter().flatten() {
                let refused = operation.responses.responses.get_mut("default");
                if let Some(RefOr::T(refused)) = refused
                    && let Some(problem) = refused.content.shift_remove("application/json")
                {
                    refused.content.insert(PROBLEM.to_owned(), problem);
                }
            }
        }
    }
}

/// The operation that has ended, or with `dry_run` what it would do.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it is described, and made of its parts")]
pub(super) enum DoneOrPlanned {
    Done(Operation),
    Planned(Plan),
}

/// The virtual machine as it is now, or the operation that has ended, or with `dry_run` what it
/// would do.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it is described, and made of its parts")]
pub(super) enum EditedOrPlanned {
    Edited(Box<Vm>),
    Done(Operation),
    Planned(Plan),
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
