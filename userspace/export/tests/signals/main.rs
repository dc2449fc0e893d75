//! What becomes of spans, metrics and log records: requests, their JSON, and the checkers of the OTLP data models.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed, its helpers too")]

mod any;
mod logs;
mod metrics;
mod requests;
mod rules;
mod sink;
mod structs;
mod support;
mod traces;
