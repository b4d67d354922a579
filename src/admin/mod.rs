//! Health, metrics and control over HTTP.
