//! What goes wrong, as people and programs are told: a message and an exit code.

use crate::context::Output;
use std::process::ExitCode;
use tintype_wire::client::ClientError;
use tintype_wire::rest::Problem;

/// Why a command came to nothing.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    problem: Box<Problem>,
}

impl Failure {
    /// It was tried and failed: exit code 1.
    pub(crate) fn failed(problem: Problem) -> Self {
        Self { code: 1, problem: Box::new(problem) }
    }

    /// Something is wrong on this side.
    pub(crate) fn plain(title: impl Into<String>, detail: impl Into<String>) -> Self {
        let (title, detail) = (title.into(), detail.into());
        let problem = Problem {
            title,
            detail,
            code: "failed".to_owned(),
            ..Problem::internal(String::new())
        };
        Self { code: 1, problem: Box::new(problem) }
    }

    /// Adds what to do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.problem.hint = hint.into();
        self
    }

    /// The server said that there is no such thing.
    pub(crate) fn missing(code: &str, title: &str, detail: &str) -> Self {
        let problem = Problem {
            status: 404,
            code: code.to_owned(),
            title: title.to_owned(),
            detail: detail.to_owned(),
            hint: String::new(),
            blocking: Vec::new(),
        };
        Self { code: 4, problem: Box::new(problem) }
    }

    /// Tells, and answers the exit code.
    pub(crate) fn report(&self, output: Output) -> ExitCode {
        match output {
            Output::Json => {
                let text = serde_json::to_string_pretty(&self.problem).unwrap_or_default();
                eprintln!("{text}");
            }
            Output::Table => {
                eprintln!("error: {}", self.problem);
                if !self.problem.hint.is_empty() {
                    eprintln!(" hint: {}", self.problem.hint);
                }
            }
        }
        ExitCode::from(self.code)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Problem(problem) => {
                let code = match problem.status {
                    404 => 4,
                    401 | 403 => 5,
                    400..=499 => 3,
                    _ => 1,
                };
                Self { code, problem }
            }
            ClientError::Transport(error) if error.is_connect() => {
                Self::plain("the server cannot be reached", error.to_string())
                    .hint("start one with tintype serve, or give --url")
            }
            ClientError::File(error) => Self::from(error),
            ClientError::Transport(error) => {
                Self::plain("the server did not answer as expected", error.to_string())
            }
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::plain(error.to_string(), "")
    }
}
