//! `/v1/events`: a page of what happened, or all that happens from now on.

use super::extract::{By, Listed, Params, Reply};
use crate::app::App;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::ACCEPT;
use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use serde::Deserialize;
use std::convert::Infallible;
use std::sync::Arc;
use tintype_wire::rest::{Event, List, Problem};
use utoipa::IntoParams;

/// Which events.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Filters {
    /// Of this virtual machine, by name or id.
    vm: Option<String>,
    /// After the event with this number, or what an earlier page said is next.
    after: Option<String>,
    /// Most items on the page: 1 to 1000, 100 if not given.
    limit: Option<u32>,
}

/// Lists events, the oldest first; with `Accept: text/event-stream` follows them from now on, or
/// from after the one that `after` or `Last-Event-ID` names.
#[utoipa::path(get, path = "/v1/events", tag = "events", params(Filters),
    responses((status = 200, body = List<Event>), (status = "default", body = Problem)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    By(caller): By,
    headers: HeaderMap,
    Params(filters): Params<Filters>,
) -> Reply<Response> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let vm = filters.vm.as_deref();
    if !text(ACCEPT.as_str()).is_some_and(|accept| accept.contains("text/event-stream")) {
        let page = app.events(&caller, vm, filters.after.as_deref(), filters.limit).await?;
        return Ok(Listed(page).into_response());
    }
    let after = text("last-event-id").or(filters.after.as_deref());
    let after = after.and_then(|after| after.parse().ok());
    let shut_out = Arc::clone(&app).until_shut_out(caller.clone());
    let events = app.follow_events(caller, vm, after).await?;
    let sent = events.take_until(shut_out).map(|event| {
        let sent = Sent::default().id(event.id.to_string()).event(event.kind.clone());
        let data = serde_json::to_string(&event).unwrap_or_default();
        Ok::<_, Infallible>(sent.data(data))
    });
    Ok(Sse::new(sent).keep_alive(KeepAlive::default()).into_response())
}
