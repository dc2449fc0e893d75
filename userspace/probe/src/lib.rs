//! Loads, attaches and reads the kernel side.
