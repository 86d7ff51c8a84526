//! `/metrics`, for Prometheus.

use super::extract::{By, Reply};
use crate::app::App;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use metrics::{counter, gauge, histogram};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// What is counted in this process.
fn recorder() -> Option<&'static PrometheusHandle> {
    static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    let install = || PrometheusBuilder::new().install_recorder().ok();
    RECORDER.get_or_init(install).as_ref()
}

/// Begins to count.
pub(super) fn begin() {
    recorder();
}

/// Counts a request and how long it took, by the route and not the address.
pub(super) async fn count(request: Request, next: Next) -> Response {
    let method = request.method().as_str().to_owned();
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("none".to_owned(), |path| path.as_str().to_owned());
    let begun = Instant::now();
    let mut response = next.run(request).await;
    let took = begun.elapsed().as_secs_f64();
    if let Ok(timing) = format!("total;dur={:.3}", took * 1000.0).parse() {
        response.headers_mut().insert("server-timing", timing);
    }
    let status = response.status().as_str().to_owned();
    histogram!("tintype_http_seconds", "method" => method.clone(), "route" => route.clone())
        .record(took);
    let labels = [("method", method), ("route", route), ("status", status)];
    counter!("tintype_http_requests_total", &labels).increment(1);
    response
}

/// What Prometheus scrapes; an operator of the root domain may.
#[utoipa::path(get, path = "/metrics", tag = "health",
    responses((status = 200, content_type = "text/plain", body = String),
              (status = "default", body = tintype_wire::rest::Problem)))]
pub(super) async fn show(State(app): State<Arc<App>>, By(caller): By) -> Reply<Response> {
    let pool = app.show_pool(&caller).await?;
    gauge!("tintype_pool_free_bytes", "pool" => pool.name.clone()).set(pool.free_bytes as f64);
    gauge!("tintype_pool_total_bytes", "pool" => pool.name.clone()).set(pool.total_bytes as f64);
    gauge!("tintype_pool_growth_bytes", "pool" => pool.name.clone()).set(pool.growth_bytes as f64);
    gauge!("tintype_pool_reclaiming", "pool" => pool.name).set(pool.reclaiming as f64);
    let text = recorder().map(PrometheusHandle::render).unwrap_or_default();
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}
