//! What makes a system container: a pure rewrite of a request.

#![forbid(unsafe_code)]
