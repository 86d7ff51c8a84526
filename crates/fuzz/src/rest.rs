//! Requests to the control plane, on a host in memory: whatever is sent, the answer is one that the
//! interface describes, and the control plane goes on.
//!
//! What is fed are requests with a zero byte between them, each of them a byte that chooses the
//! operation, a byte that chooses what it is about, the text of its address up to a line's end, and
//! the body.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use axum::http::{Request, StatusCode};
use serde_json::Value;
use std::fmt::Write;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tintype_agent::FakeAgent;
use tintype_server::app::{App, Machine, Options};
use tintype_server::{Gate, openapi_json, router};
use tintype_store::Store;
use tokio::runtime::Builder;
use tokio::time::{sleep, timeout};
use tower::ServiceExt;

/// So many requests of an input are sent.
const REQUESTS_MOST: usize = 6;
/// Longer than any request waits, by a clock that does not wait for anything.
const PATIENCE: Duration = Duration::from_secs(1000);
const ADDRESS: &str = "127.0.0.1:7420";

/// The operations of the interface's description: method and path.
static OPERATIONS: LazyLock<Vec<(String, String)>> = LazyLock::new(|| {
    let document: Value = serde_json::from_str(&openapi_json()).expect("it is JSON");
    let paths = document["paths"].as_object().expect("it has paths");
    // A database in memory has no file to be copied to.
    let paths = paths.iter().filter(|(path, _)| *path != "/v1/database");
    let each = paths.flat_map(|(path, item)| {
        let methods = item.as_object().expect("a path has methods").keys();
        methods.map(|method| (method.to_uppercase(), path.clone()))
    });
    each.collect()
});

/// A control plane with a virtual machine that runs and has a snapshot.
struct World {
    router: Router,
    token: String,
    /// What requests are about: ids that are known, and others.
    subjects: Vec<String>,
}

/// No answer is the server's fault, each refusal is a problem with a code, and the machine can be
/// asked for afterwards.
pub fn rest(bytes: &[u8]) {
    let requests: Vec<&[u8]> = bytes.split(|&byte| byte == 0).take(REQUESTS_MOST).collect();
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("one thread").block_on(async {
        let world = World::new().await;
        for request in requests {
            if let Some(request) = world.request(request) {
                world.send(request).await;
            }
        }
        let alive = Request::get("/v1/vms").body(Body::empty()).expect("it is a request");
        assert_eq!(world.send(alive).await, StatusCode::OK);
    });
}

impl World {
    async fn new() -> Self {
        let store = Store::in_memory(|| false).expect("there is memory");
        let agent = Arc::new(FakeAgent::default());
        let app = App::start(store, agent, Arc::new(Machine), Options::on("host"));
        let app = app.await.expect("it starts");
        let token = app.local_token(None).await.expect("there is a token");
        let gate = Arc::new(Gate::new(ADDRESS.parse().expect("an address"), &[], false));
        let mut world = Self { router: router(app, gate), token, subjects: Vec::new() };
        world.furnish().await;
        world
    }

    async fn furnish(&mut self) {
        let vm = r#"{"name":"web","memory_bytes":67108864}"#;
        self.must("/v1/vms", vm).await;
        self.must("/v1/vms/web/start", "{}").await;
        let taken = self.must("/v1/vms/web/snapshots", r#"{"name":"one"}"#).await;
        let id = |value: &Value| value.as_str().unwrap_or("none").to_owned();
        self.subjects = vec!["web".into(), id(&taken["vm"]), id(&taken["snapshot"])];
        self.subjects.extend([id(&taken["id"]), "host".into(), "root".into(), "admin".into()]);
    }

    async fn must(&self, path: &str, body: &'static str) -> Value {
        let request = Request::post(path).header(CONTENT_TYPE, "application/json");
        let request = request.body(Body::from(body)).expect("it is a request");
        let response = self.answer(request).await;
        assert!(response.0.is_success(), "{path}: {}", response.1);
        sleep(Duration::from_secs(5)).await;
        response.1
    }

    /// The request that these bytes say, if they say one.
    fn request(&self, bytes: &[u8]) -> Option<Request<Body>> {
        let (&[operation, subject], rest) = bytes.split_first_chunk::<2>()?;
        let (method, path) = &OPERATIONS[usize::from(operation) % OPERATIONS.len()];
        let end = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
        let (text, body) = rest.split_at(end);
        let (text, query) = match text.iter().position(|&byte| byte == b'?') {
            Some(at) => (&text[..at], &text[at..]),
            None => (text, &[][..]),
        };
        let known = self.subjects.get(usize::from(subject));
        let subject = known.cloned().unwrap_or_else(|| escaped(text));
        let mut path = filled(path, &subject, &escaped(text));
        path.push_str(std::str::from_utf8(query).ok()?);
        let json = body.strip_prefix(b"\n").unwrap_or_default();
        let request = Request::builder().method(method.as_str()).uri(path);
        let request = request.header(CONTENT_TYPE, "application/json");
        request.body(Body::from(json.to_vec())).ok()
    }

    async fn send(&self, request: Request<Body>) -> StatusCode {
        let told = format!("{} {}", request.method(), request.uri());
        let (status, answer) = self.answer(request).await;
        assert!(!status.is_server_error(), "{told}: {status} {answer}");
        if status.is_client_error() {
            assert!(answer["code"].is_string(), "{told}: {status} {answer}");
        }
        status
    }

    /// The answer to a request; of what is followed without an end only that it begins.
    async fn answer(&self, mut request: Request<Body>) -> (StatusCode, Value) {
        let token = format!("Bearer {}", self.token);
        request.headers_mut().insert(HOST, ADDRESS.parse().expect("it is a value"));
        request.headers_mut().insert(AUTHORIZATION, token.parse().expect("it is a value"));
        let answer = timeout(PATIENCE, self.router.clone().oneshot(request)).await;
        let response = answer.expect("it answers").expect("nothing else fails");
        let status = response.status();
        let kind = response.headers().get(CONTENT_TYPE).cloned();
        let is_json =
            kind.is_some_and(|kind| kind.to_str().is_ok_and(|kind| kind.contains("json")));
        if !is_json {
            return (status, Value::Null);
        }
        let body = to_bytes(response.into_body(), usize::MAX).await.expect("it has an end");
        (status, serde_json::from_slice(&body).expect("it is JSON"))
    }
}

/// A path whose first place is filled with one text, and the others with another.
fn filled(path: &str, first: &str, others: &str) -> String {
    let mut texts = [first].into_iter().chain(std::iter::repeat(others));
    let parts = path.split('/').map(|part| match part.starts_with('{') {
        true => texts.next().unwrap_or(others),
        false => part,
    });
    parts.collect::<Vec<_>>().join("/")
}

/// Bytes as a part of an address.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}
