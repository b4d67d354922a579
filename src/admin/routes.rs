//! What is answered to what.

use super::pulse::Pulse;
use super::token::Guard;
use crate::supervisor::health::{Health, Stage};
use crate::telemetry::metrics::Scrape;
use crate::transport::Secret;
use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::json;
use std::sync::Arc;

/// Asks the app to stop and tells its deadline.
pub type Shutdown = Arc<dyn Fn() -> jiff::Timestamp + Send + Sync>;

/// The text format of Prometheus.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What there is, as `/` and an unknown path tell it.
const ENDPOINTS: [(&str, &str, &str); 7] = [
    ("GET", "/", "name, version and this list"),
    ("GET", "/livez", "whether the executor turns"),
    ("GET", "/readyz", "whether work is taken, and if not, why"),
    ("GET", "/ready", "the same as /readyz"),
    ("GET", "/health", "every actor with its state"),
    ("GET", "/metrics", "metrics in the text format of Prometheus"),
    ("POST", "/shutdown", "stops the app; needs the token"),
];

struct Desk {
    health: Health,
    metrics: Option<Scrape>,
    shutdown: Shutdown,
    guard: Guard,
    pulse: Arc<Pulse>,
}

/// No route reads a request's body, so there is nothing to limit: hyper closes a connection whose body is not read.
pub(super) fn router(
    health: Health,
    metrics: Option<Scrape>,
    shutdown: Shutdown,
    token: Option<Secret>,
    pulse: Arc<Pulse>,
) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/ready", get(readyz))
        .route("/health", get(health_tree))
        .route("/metrics", get(render_metrics))
        .route("/shutdown", post(stop))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .with_state(Arc::new(Desk { health, metrics, shutdown, guard: Guard::new(token), pulse }))
}

async fn index(State(desk): State<Arc<Desk>>) -> Response {
    let endpoints = ENDPOINTS.map(|(method, path, what)| json!({"method": method, "path": path, "what": what}));
    Json(json!({"name": desk.health.app(), "version": desk.health.version(), "endpoints": endpoints})).into_response()
}

/// Never asks a broker, nor an actor. Never fails while the app stops: the deadline ends a stop, and a kubelet that
/// killed it before would throw away what is being drained.
async fn livez(State(desk): State<Arc<Desk>>) -> Response {
    if desk.pulse.is_alive() || desk.health.stage() == Stage::Stopping {
        return Json(json!({"status": "alive"})).into_response();
    }
    let since_ms = desk.pulse.age().as_millis() as u64;
    let body = json!({"status": "stuck", "reason": "the executor does not turn", "since_ms": since_ms});
    (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
}

async fn readyz(State(desk): State<Arc<Desk>>) -> Response {
    let readiness = desk.health.readiness();
    let code = if readiness.accepting_traffic { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(readiness)).into_response()
}

async fn health_tree(State(desk): State<Arc<Desk>>) -> Response {
    Json(desk.health.tree()).into_response()
}

async fn render_metrics(State(desk): State<Arc<Desk>>) -> Response {
    match &desk.metrics {
        Some(metrics) => ([(CONTENT_TYPE, PROMETHEUS_TEXT)], metrics.render()).into_response(),
        None => refused(StatusCode::NOT_IMPLEMENTED, "this program has a metrics recorder of its own: ask that one"),
    }
}

async fn stop(State(desk): State<Arc<Desk>>, headers: HeaderMap) -> Response {
    if let Err(why) = desk.guard.check(&headers) {
        tracing::warn!(why, "a POST /shutdown was refused");
        return refused(StatusCode::FORBIDDEN, why);
    }
    let deadline = (desk.shutdown)();
    tracing::info!(%deadline, "a stop was asked for by POST /shutdown");
    Json(json!({"status": "shutdown_initiated", "deadline": deadline.to_string()})).into_response()
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    let allowed = ENDPOINTS.iter().find(|(_, path, _)| *path == uri.path()).map_or("another", |(method, ..)| method);
    refused(StatusCode::METHOD_NOT_ALLOWED, &format!("{} takes {allowed}, not {method}", uri.path()))
}

async fn unknown() -> Response {
    let endpoints = ENDPOINTS.map(|(method, path, _)| format!("{method} {path}"));
    (StatusCode::NOT_FOUND, Json(json!({"error": "no such endpoint", "endpoints": endpoints}))).into_response()
}

fn refused(code: StatusCode, why: &str) -> Response {
    (code, Json(json!({"error": why}))).into_response()
}
