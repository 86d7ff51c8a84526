//! The one client of the REST interface.

use crate::rest::{Operation, Problem};
use futures::StreamExt;
use reqwest::{Certificate, Method, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;
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
    /// A file could not be read.
    #[error("{0}")]
    File(#[from] std::io::Error),
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
    ///
    /// # Errors
    /// When the file with certificates of authorities, which are trusted beside those the system
    /// trusts, is not understood.
    pub fn new(url: &str, token: &str, ca: Option<&Path>) -> Result<Self, ClientError> {
        // Whoever has chosen another one has done so first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut http = reqwest::Client::builder();
        if let Some(ca) = ca {
            let pem = std::fs::read(ca)?;
            http = http.tls_certs_merge(Certificate::from_pem_bundle(&pem)?);
        }
        let url = url.trim_end_matches('/').to_owned();
        Ok(Self { http: http.build()?, url, token: token.to_owned() })
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

    /// Asks for something, and answers its status with it: for what is done at once or becomes an
    /// operation.
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub async fn patch_or_accept(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Done, ClientError> {
        let response = self.send(Method::PATCH, path, Some(body)).await?;
        if response.status() == StatusCode::ACCEPTED {
            return Ok(Done::Accepted(Box::new(decode(response).await?)));
        }
        Ok(Done::AtOnce(decode(response).await?))
    }

    /// Removes something that is gone at once.
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub async fn remove(&self, path: &str) -> Result<(), ClientError> {
        self.send(Method::DELETE, path, None::<&()>).await.map(drop)
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

/// What came of a change.
#[derive(Clone, Debug)]
pub enum Done {
    /// The object as it is now.
    AtOnce(serde_json::Value),
    /// An operation does it.
    Accepted(Box<Operation>),
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
