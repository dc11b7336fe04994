//! The JSON others speak: OCI config, process, resources, state, features, events, log lines.

#![forbid(unsafe_code)]
