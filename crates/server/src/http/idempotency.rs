//! A POST that carries an Idempotency-Key is done once: repeated, it gets the first answer again.
//!
//! The answer is kept after it is given. What dies in between has accepted an operation whose id
//! follows from the key, so that the repeated request finds it.

use super::BODY_MOST;
use super::extract::{JSON, No, operation};
use crate::app::App;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use tintype_model::access::Caller;
use tintype_model::refusal::Code;
use tintype_model::{OperationId, Refusal, TokenId};
use tintype_store::{Remembered, StoreError};
use uuid::Builder;

/// Where requests or answers hold secrets.
const SECRET: [&str; 2] = ["/v1/tokens", "/v1/users"];
/// Longest key.
const KEY_MOST: usize = 255;

/// Answers a request that was answered before, or lets it through and remembers the answer.
pub(super) async fn remember(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Response {
    let key = request.headers().get("idempotency-key").and_then(|key| key.to_str().ok());
    let Some(key) = key.filter(|_| request.method() == Method::POST).map(str::to_owned) else {
        return next.run(request).await;
    };
    // Who is not known is about to sign in; and what holds a secret is not kept.
    let caller = request.extensions().get::<Caller>().cloned();
    let secret = SECRET.contains(&request.uri().path());
    let Some(caller) = caller.filter(|_| !secret) else {
        return next.run(request).await;
    };
    match answer(&app, caller, key, request, next).await {
        Ok(response) => response,
        Err(refusal) => No::from(refusal).into_response(),
    }
}

async fn answer(
    app: &App,
    caller: Caller,
    key: String,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    let token = caller.token;
    if key.is_empty() || key.len() > KEY_MOST {
        return Err(Refusal::new(Code::InvalidRequest)
            .detail(format!("an Idempotency-Key of {} characters", key.len()))
            .hint("1 to 255 characters"));
    }
    let (mut parts, body) = request.into_parts();
    let body = to_bytes(body, BODY_MOST)
        .await
        .map_err(|_| Refusal::new(Code::BodyTooLarge).hint("1 MiB at most"))?;
    let asked = format!("{} {}\n", parts.method, parts.uri);
    let asked = Sha256::new().chain_update(asked).chain_update(&body).finalize();
    let asked: String = asked.iter().map(|byte| format!("{byte:02x}")).collect();
    let known = async { app.store().read().await?.remembered(token, &key) };
    if let Some(known) = known.await.map_err(failed)? {
        if known.request != asked {
            return Err(Refusal::new(Code::KeyReused).hint("use a new key for a new request"));
        }
        return Ok(replay(known));
    }
    let once = operation_id(token, &key, &asked);
    if let Some(accepted) = app.accepted_as(once).await? {
        return Ok(operation(accepted));
    }
    parts.extensions.insert(Caller { once: Some(once), ..caller });
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    if !response.status().is_success() {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, BODY_MOST)
        .await
        .map_err(|error| Refusal::new(Code::Internal).detail(error.to_string()))?;
    let location = parts.headers.get(LOCATION).and_then(|value| value.to_str().ok());
    let known = Remembered {
        request: asked,
        status: parts.status.as_u16(),
        location: location.map(str::to_owned),
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    let kept = async {
        let mut unit = app.store().write().await?;
        unit.remember(token, &key, &known, app.now())?;
        unit.commit().await
    };
    kept.await.map_err(failed)?;
    Ok(Response::from_parts(parts, Body::from(body)))
}

/// The id of what a request with a key starts: of the first bits of a hash of all that makes it the
/// same request.
fn operation_id(token: TokenId, key: &str, asked: &str) -> OperationId {
    let hash = Sha256::digest(format!("{token}\n{asked}\n{key}"));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    OperationId(Builder::from_custom_bytes(bytes).into_uuid())
}

fn replay(known: Remembered) -> Response {
    let status = StatusCode::from_u16(known.status).unwrap_or(StatusCode::OK);
    let mut response = (status, known.body).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    if let Some(location) = known.location.and_then(|location| location.parse().ok()) {
        headers.insert(LOCATION, location);
    }
    response
}

fn failed(error: StoreError) -> Refusal {
    Refusal::new(Code::Internal).detail(error.to_string())
}
