//! Bodies, queries and answers: what is not understood is a problem, never a default.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tintype_model::Refusal;
use tintype_model::access::Caller;
use tintype_model::refusal::Code;
use tintype_store::{Cursor, Order, Page};
use tintype_wire::rest::{List, Operation, Problem};
use utoipa::IntoParams;

/// Room for one of what a list has, as it is written, in bytes.
const ITEM_ROOM: usize = 1024;

/// Longest time a request may wait for an operation.
const WAIT_MOST: Duration = Duration::from_secs(600);

/// The media type of a refusal.
pub(super) const PROBLEM: &str = "application/problem+json";
/// The media type of every other answer.
pub(super) const JSON: &str = "application/json";

/// A refusal as an answer.
#[derive(Debug)]
pub(super) struct No(Box<Problem>);

impl From<Refusal> for No {
    fn from(refusal: Refusal) -> Self {
        Self(Box::new(refusal.into()))
    }
}

impl IntoResponse for No {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::BAD_REQUEST);
        let mut response = (status, Json(*self.0)).into_response();
        let kind = HeaderValue::from_static(PROBLEM);
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    }
}

/// An answer or a problem.
pub(super) type Reply<T> = Result<T, No>;

/// A JSON body, all of whose fields are known. No body at all is as an empty object.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = No;

    async fn from_request(request: Request, state: &S) -> Result<Self, No> {
        let bytes = bytes(request, state).await?;
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        serde_json::from_slice(text)
            .map(Self)
            .map_err(|error| No::from(not_understood(error.to_string())))
    }
}

/// The bytes of a body.
pub(super) async fn bytes<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, No> {
    Bytes::from_request(request, state).await.map_err(|rejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            return Refusal::new(Code::BodyTooLarge).hint("1 MiB at most").into();
        }
        not_understood(rejection.body_text()).into()
    })
}

/// The texts in an address that are no words of ours. What is no text names nothing.
pub(super) struct Path<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = No;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, No> {
        let texts = axum::extract::Path::from_request_parts(parts, state).await;
        texts.map(|axum::extract::Path(texts)| Self(texts)).map_err(|rejection| {
            No::from(Refusal::new(Code::UnknownAddress).detail(rejection.body_text()))
        })
    }
}

/// A query, all of whose parameters are known.
pub(super) struct Params<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = No;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, No> {
        let query = parts.uri.query().unwrap_or_default();
        let params = serde_html_form::from_str(query);
        params.map(Self).map_err(|error| not_understood(error.to_string()).into())
    }
}

fn not_understood(detail: String) -> Refusal {
    Refusal::new(Code::InvalidRequest)
        .detail(detail)
        .hint("the interface is described at /openapi.json")
}

/// An id in an address; what is no id names nothing.
pub(super) fn id<T: std::str::FromStr>(text: &str, unknown: Code) -> Reply<T> {
    text.parse().map_err(|_| Refusal::new(unknown).detail(text).into())
}

/// A length of time such as `30s`, `200ms` or `2m`.
pub(super) fn duration(text: Option<&str>) -> Reply<Duration> {
    let Some(text) = text else {
        return Ok(Duration::ZERO);
    };
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: Option<u64> = number.parse().ok().filter(|&n| n <= 1_000_000_000);
    let duration = match (number, unit) {
        (Some(n), "ms") => Some(Duration::from_millis(n)),
        (Some(n), "s") => Some(Duration::from_secs(n)),
        (Some(n), "m") => Some(Duration::from_secs(n * 60)),
        _ => None,
    };
    duration.map(|duration| duration.min(WAIT_MOST)).ok_or_else(|| {
        Refusal::new(Code::InvalidRequest)
            .detail(format!("{text:?} is no length of time"))
            .hint("a number and ms, s or m, such as 30s")
            .into()
    })
}

/// An enumeration in a query.
pub(super) fn word<T: DeserializeOwned>(what: &str, text: Option<String>) -> Reply<Option<T>> {
    let parse = |text: String| {
        serde_json::from_value(text.clone().into()).map_err(|_| {
            No::from(Refusal::new(Code::InvalidRequest).detail(format!("{what} {text:?}")))
        })
    };
    text.map(parse).transpose()
}

/// A page of a list that has no filters.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Paging {
    /// `created` (if not given), `-created`, `name` or `-name`.
    sort: Option<String>,
    /// What an earlier page said is next.
    after: Option<String>,
    /// Most items on the page: 1 to 1000, 100 if not given.
    limit: Option<u32>,
}

impl Paging {
    pub(super) fn page(&self) -> Reply<Page> {
        page(order(self.sort.as_deref())?, self.after.as_deref(), self.limit)
    }
}

/// What a list is ordered by.
pub(super) fn order(sort: Option<&str>) -> Reply<Order> {
    match sort {
        None | Some("created") => Ok(Order::Oldest),
        Some("-created") => Ok(Order::Newest),
        Some("name") => Ok(Order::Name),
        Some("-name") => Ok(Order::NameBackwards),
        Some(other) => Err(Refusal::new(Code::InvalidRequest)
            .detail(format!("sort {other:?}"))
            .hint("created, -created, name or -name")
            .into()),
    }
}

/// A page of a list.
pub(super) fn page(order: Order, after: Option<&str>, limit: Option<u32>) -> Reply<Page> {
    let strange = || {
        No::from(
            Refusal::new(Code::InvalidRequest)
                .detail(format!("after {after:?}"))
                .hint("give what an earlier page of the same order said is next"),
        )
    };
    let place: Option<Cursor> =
        after.map(|text| text.parse().map_err(|()| strange())).transpose()?;
    let page = Page::new(order, place, limit);
    if page.is_in_order() { Ok(page) } else { Err(strange()) }
}

/// Who asks, as the gate has found out.
pub(super) struct By(pub(super) Caller);

impl<S: Send + Sync> FromRequestParts<S> for By {
    type Rejection = No;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, No> {
        let caller = parts.extensions.get::<Caller>().cloned();
        caller.map(Self).ok_or_else(|| Refusal::new(Code::Unauthorized).into())
    }
}

/// A list as an answer. It may be long: room is made for it once.
pub(super) struct Listed<T>(pub(super) List<T>);

impl<T: Serialize> IntoResponse for Listed<T> {
    fn into_response(self) -> Response {
        let mut body = Vec::with_capacity((self.0.items.len() + 1) * ITEM_ROOM);
        match serde_json::to_writer(&mut body, &self.0) {
            Ok(()) => ([(CONTENT_TYPE, JSON)], body).into_response(),
            Err(error) => {
                No::from(Refusal::new(Code::Internal).detail(error.to_string())).into_response()
            }
        }
    }
}

/// Something that was created, as an answer.
pub(super) fn created(location: &str, made: &impl Serialize) -> Response {
    (StatusCode::CREATED, [(LOCATION, location)], Json(made)).into_response()
}

/// Something that is gone, as an answer.
pub(super) fn gone() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// An operation as an answer: 202 while it runs, 200 when it was waited for and has ended.
pub(super) fn operation(operation: Operation) -> Response {
    let status = if operation.has_ended() { StatusCode::OK } else { StatusCode::ACCEPTED };
    let location = format!("/v1/operations/{}", operation.id);
    (status, [(LOCATION, location)], Json(operation)).into_response()
}

#[cfg(test)]
mod tests {
    use super::duration;
    use std::time::Duration;

    #[test]
    fn lengths_of_time_have_a_unit() {
        assert_eq!(duration(None).ok(), Some(Duration::ZERO));
        assert_eq!(duration(Some("30s")).ok(), Some(Duration::from_secs(30)));
        assert_eq!(duration(Some("200ms")).ok(), Some(Duration::from_millis(200)));
        assert_eq!(duration(Some("99m")).ok(), Some(Duration::from_secs(600)));
        for bad in ["", "s", "30", "30h", "-1s", "1.5s", "99999999999999999999s"] {
            assert!(duration(Some(bad)).is_err(), "{bad}");
        }
    }
}
