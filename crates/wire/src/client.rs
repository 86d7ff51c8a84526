//! The one client of the REST interface.

use crate::rest::{Operation, Problem};
use futures::StreamExt;
use reqwest::{Method, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;
use uuid::Uuid;

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server said no.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// The server was not reached, or did not speak our language.
    #[error("{0}")]
    Transport(#[from] reqwest::Error),
}

/// A client with a token.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Client {
    /// A client of the server at `url`, such as `http://127.0.0.1:7420`.
    pub fn new(url: &str, token: &str) -> Self {
        Self {
            http: reqwest::Client::new(),
            url: url.trim_end_matches('/').to_owned(),
            token: token.to_owned(),
        }
    }

    /// Reads something.
    ///
    /// # Errors
    /// When the server says no or is not reached; so for all of these.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        decode(self.send(Method::GET, path, None::<&()>).await?).await
    }

    /// Asks for something to be done.
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        decode(self.send(Method::POST, path, Some(body)).await?).await
    }

    /// Changes something.
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub async fn patch<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        decode(self.send(Method::PATCH, path, Some(body)).await?).await
    }

    /// Removes something.
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        decode(self.send(Method::DELETE, path, None::<&()>).await?).await
    }

    /// Waits until an operation has ended, telling each state of it that is seen.
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub async fn follow(
        &self,
        id: Uuid,
        mut seen: impl FnMut(&Operation),
    ) -> Result<Operation, ClientError> {
        loop {
            let operation: Operation = self.get(&format!("/v1/operations/{id}?wait=200ms")).await?;
            seen(&operation);
            if operation.has_ended() {
                return Ok(operation);
            }
        }
    }

    /// Follows a console.
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub async fn stream(&self, path: &str, mut seen: impl FnMut(&[u8])) -> Result<(), ClientError> {
        let response = self.send(Method::GET, path, None::<&()>).await?;
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            seen(&chunk?);
        }
        Ok(())
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Response, ClientError> {
        let mut request = self
            .http
            .request(method.clone(), format!("{}{path}", self.url))
            .bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        if method == Method::POST {
            request = request.header("Idempotency-Key", Uuid::new_v4().to_string());
        }
        let response = request.timeout(Duration::from_secs(3600)).send().await?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(ClientError::Problem(Box::new(problem(response).await)))
    }
}

async fn decode<T: DeserializeOwned>(response: Response) -> Result<T, ClientError> {
    Ok(response.json().await?)
}

/// The problem in an answer, or one made of its status where it holds none.
async fn problem(response: Response) -> Problem {
    let status = response.status();
    match response.json().await {
        Ok(problem) => problem,
        Err(_) => Problem {
            status: status.as_u16(),
            code: if status == StatusCode::NOT_FOUND { "unknown-address" } else { "internal" }
                .to_owned(),
            title: status.to_string(),
            detail: String::new(),
            hint: String::new(),
            blocking: Vec::new(),
        },
    }
}
