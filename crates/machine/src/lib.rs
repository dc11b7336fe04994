//! Named system containers: definitions, networks, devices, start order, many at once.

#![forbid(unsafe_code)]
