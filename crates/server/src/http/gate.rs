//! Who may come in: whoever has the token, and means us. A page in a browser that was led to our
//! address under another name is told so.

use super::BODY_MOST;
use super::extract::No;
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
    token: String,
    hosts: Vec<String>,
}

impl Gate {
    /// A gate for a server that listens at `address`.
    pub fn new(token: String, address: SocketAddr) -> Self {
        let port = address.port();
        let mut hosts = vec![address.to_string()];
        if address.ip().is_loopback() || address.ip().is_unspecified() {
            hosts.extend(["127.0.0.1", "localhost", "[::1]"].map(|name| format!("{name}:{port}")));
        }
        Self { token, hosts }
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
            if !origin.is_some_and(|(_, host)| self.hosts.iter().any(|ours| ours == host)) {
                return Err(Refusal::new(Code::ForeignHost).detail("a foreign Origin"));
            }
        }
        let given = text(AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
        if given.is_some_and(|given| same(given.as_bytes(), self.token.as_bytes())) {
            return Ok(());
        }
        Err(Refusal::new(Code::Unauthorized)
            .hint("send Authorization: Bearer and the token in client.toml of the data folder"))
    }
}

/// Compares in a time that does not tell where the first difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |all, (x, y)| all | (x ^ y)) == 0
}

/// Lets a request in, or not.
pub(super) async fn check(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    match gate.check(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => No::from(refusal).into_response(),
    }
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
    use tintype_model::refusal::Code;

    fn check(headers: &[(&'static str, &'static str)], expected: Option<Code>) {
        let gate = Gate::new("secret".into(), "127.0.0.1:7420".parse().unwrap());
        let map: HeaderMap = headers
            .iter()
            .map(|&(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect();
        assert_eq!(gate.check(&map).err().map(|refusal| refusal.code), expected, "{headers:?}");
    }

    #[test]
    fn only_who_has_the_token_and_means_us_comes_in() {
        let token = ("authorization", "Bearer secret");
        check(&[("host", "127.0.0.1:7420"), token], None);
        check(&[("host", "localhost:7420"), token, ("origin", "http://localhost:7420")], None);
        check(&[("host", "localhost:7420")], Some(Code::Unauthorized));
        check(
            &[("host", "localhost:7420"), ("authorization", "Bearer secreT")],
            Some(Code::Unauthorized),
        );
        check(
            &[("host", "localhost:7420"), ("authorization", "Basic secret")],
            Some(Code::Unauthorized),
        );
        check(&[("host", "evil.example"), token], Some(Code::ForeignHost));
        check(&[token], Some(Code::ForeignHost));
        check(
            &[("host", "localhost:7420"), token, ("origin", "http://evil.example")],
            Some(Code::ForeignHost),
        );
        check(&[("host", "localhost:7420"), token, ("origin", "null")], Some(Code::ForeignHost));
    }
}
