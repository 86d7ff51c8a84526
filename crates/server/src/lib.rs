//! The control plane: HTTP, what its words mean, and the loops that work by themselves.

pub mod app;
mod http;
mod view;

pub use http::{Gate, openapi_json, router};
