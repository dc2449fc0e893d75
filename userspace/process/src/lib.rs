//! Who a pid is: identity, mappings, binaries, container.
#![forbid(unsafe_code)]
