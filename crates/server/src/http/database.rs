//! `/v1/database`

use super::extract::{By, Reply};
use crate::app::App;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use tintype_wire::rest::Problem;
use tokio::io::AsyncReadExt;

/// How much is read at once, in bytes.
const CHUNK: usize = 256 << 10;

/// Answers a copy of the database as it is now, a SQLite file. It holds what is needed to sign in,
/// as hashes: keep it as you keep the database.
#[utoipa::path(get, path = "/v1/database", tag = "database",
    responses((status = 200, content_type = "application/vnd.sqlite3", body = Vec<u8>),
              (status = "default", body = Problem)))]
pub(super) async fn save(State(app): State<Arc<App>>, By(caller): By) -> Reply<Response> {
    let copy = app.copy_database(&caller).await?;
    let chunks = futures::stream::try_unfold(tokio::fs::File::from_std(copy), async |mut file| {
        let mut chunk = vec![0; CHUNK];
        let length = file.read(&mut chunk).await?;
        chunk.truncate(length);
        Ok::<_, std::io::Error>((length > 0).then(|| (Bytes::from(chunk), file)))
    });
    let kind = [(CONTENT_TYPE, "application/vnd.sqlite3")];
    Ok((kind, Body::from_stream(chunks)).into_response())
}
