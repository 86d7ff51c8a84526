//! Who may come in: whoever shows a token, and means us. A page in a browser that was led to our
//! address under another name is told so.

use super::BODY_MOST;
use super::extract::No;
use crate::app::App;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderName};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::SocketAddr;
use std::sync::Arc;
use tintype_model::Refusal;
use tintype_model::refusal::Code;

/// What a request has to show.
#[derive(Clone, Debug)]
pub struct Gate {
    hosts: Vec<String>,
    scheme: &'static str,
}

/// Where one signs in, without a token.
pub(super) const SIGN_IN: &str = "/v1/sign-in";
/// Where one asks how the server is, without a token.
pub(super) const HEALTH: &str = "/health";

impl Gate {
    /// A gate for a server that listens at `address` and is known by further names as well.
    pub fn new(address: SocketAddr, names: &[String], secured: bool) -> Self {
        let port = address.port();
        let mut hosts = vec![address.to_string()];
        if address.ip().is_loopback() || address.ip().is_unspecified() {
            hosts.extend(["127.0.0.1", "localhost", "[::1]"].map(|name| format!("{name}:{port}")));
        }
        for name in names {
            hosts.extend([name.clone(), format!("{name}:{port}")]);
        }
        Self { hosts, scheme: if secured { "https" } else { "http" } }
    }

    fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let host = text(HOST).unwrap_or_default();
        if !self.hosts.iter().any(|ours| ours == host) {
            return Err(Refusal::new(Code::ForeignHost)
                .detail(format!("Host {host:?}"))
                .hint("use the address that the server printed when it started"));
        }
        if headers.contains_key(ORIGIN) {
            let origin = text(ORIGIN).and_then(|origin| origin.split_once("://"));
            let ours = |(scheme, host): (&str, &str)| {
                scheme == self.scheme && self.hosts.iter().any(|ours| ours == host)
            };
            if !origin.is_some_and(ours) {
                return Err(Refusal::new(Code::ForeignHost).detail("a foreign Origin"));
            }
        }
        Ok(())
    }
}

/// Lets a request in, with who asks, or not.
pub(super) async fn check(
    State((gate, app)): State<(Arc<Gate>, Arc<App>)>,
    mut request: Request,
    next: Next,
) -> Response {
    if let Err(refusal) = gate.check(request.headers()) {
        return No::from(refusal).into_response();
    }
    let path = request.uri().path();
    if path == SIGN_IN || path == HEALTH {
        return next.run(request).await;
    }
    match app.authenticate(token(request.headers())).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refusal) => No::from(refusal).into_response(),
    }
}

fn token(headers: &HeaderMap) -> &str {
    let text = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    text.and_then(|text| text.strip_prefix("Bearer ")).unwrap_or_default()
}

/// Refuses a body that says it is too large before any of it is read.
pub(super) async fn too_large(request: Request, next: Next) -> Response {
    let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if length.and_then(|length| length.parse::<usize>().ok()).is_some_and(|n| n > BODY_MOST) {
        return No::from(Refusal::new(Code::BodyTooLarge).hint("1 MiB at most")).into_response();
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::Gate;
    use axum::http::{HeaderMap, HeaderValue};

    fn check(headers: &[(&'static str, &'static str)], passes: bool) {
        let names = ["lab.example".to_owned()];
        let gate = Gate::new("127.0.0.1:7420".parse().unwrap(), &names, false);
        let map: HeaderMap = headers
            .iter()
            .map(|&(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect();
        assert_eq!(gate.check(&map).is_ok(), passes, "{headers:?}");
    }

    #[test]
    fn only_who_means_us_comes_in() {
        check(&[("host", "127.0.0.1:7420")], true);
        check(&[("host", "localhost:7420"), ("origin", "http://localhost:7420")], true);
        check(&[("host", "lab.example:7420")], true);
        check(&[("host", "lab.example")], true);
        check(&[("host", "evil.example")], false);
        check(&[], false);
        check(&[("host", "localhost:7420"), ("origin", "http://evil.example")], false);
        check(&[("host", "localhost:7420"), ("origin", "https://localhost:7420")], false);
        check(&[("host", "localhost:7420"), ("origin", "null")], false);
    }
}
