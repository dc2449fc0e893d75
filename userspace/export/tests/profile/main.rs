//! What becomes of a profile: files of each format, requests, and the checker of the OTLP data model.

mod files;
mod requests;
mod rules;
mod support;
