//! What becomes of a profile: files of each format, requests, and the checker of the OTLP data model.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed, its helpers too")]

mod files;
mod readers;
mod requests;
mod rules;
mod support;
