//! Helpers of the tests from the outside.
#![forbid(unsafe_code)]
