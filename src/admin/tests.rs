//! Real HTTP over real sockets.

use super::*;
use crate::supervisor::health::{Hindrance, Stage};
use crate::telemetry;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const TOKEN: &str = "canary-7f3a";
const DEADLINE: &str = "2026-11-21T10:00:25Z";

struct App {
    health: Health,
    handle: AdminHandle,
    stops: Arc<AtomicUsize>,
}

struct Answer {
    code: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {:?}", self.body))
    }
}

fn free_port() -> AdminListen {
    "127.0.0.1:0".parse().unwrap()
}

async fn app_with(name: &str, token: Option<&str>, metrics: Option<Scrape>, alive_within: Duration) -> App {
    app_at(&free_port(), name, token, metrics, alive_within).await
}

async fn app_at(
    listen: &AdminListen,
    name: &str,
    token: Option<&str>,
    metrics: Option<Scrape>,
    alive_within: Duration,
) -> App {
    let (health, stops) = (Health::new(name, "1.2.3"), Arc::new(AtomicUsize::new(0)));
    let counted = stops.clone();
    let shutdown: Shutdown = Arc::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        DEADLINE.parse().unwrap()
    });
    let bound = Admin::bind(listen).unwrap().unwrap();
    let serving = bound.serve_watching(alive_within, health.clone(), metrics, shutdown, token.map(Secret::new));
    App { health, handle: serving.await.unwrap(), stops }
}

async fn app(token: Option<&str>) -> App {
    app_with("orders", token, telemetry::metrics::install(), ALIVE_WITHIN).await
}

/// An app on an address of its own, so that no other test can be given its port once it is free again.
async fn app_alone(ip: &str) -> App {
    app_at(&AdminListen::At(format!("{ip}:0")), "orders", None, None, ALIVE_WITHIN).await
}

/// One request on a connection of its own.
async fn ask(addr: SocketAddr, method: &str, path: &str, header: &str) -> Answer {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    answer(&mut stream).await
}

/// Reads to the end of the connection.
async fn answer(stream: &mut TcpStream) -> Answer {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { code, head: head.to_lowercase(), body: body.to_owned() }
}

/// Sends a request and reads its answer's head, and keeps the connection.
async fn ask_and_stay(addr: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"}") {
        seen.push(stream.read_u8().await.unwrap());
    }
    assert!(seen.starts_with(b"HTTP/1.1 200"));
    stream
}

#[tokio::test]
async fn readyz_tells_starting_ready_not_ready_and_shutting_down() {
    let app = app(None).await;
    let addr = app.handle.addr();
    let ship = app.health.actor("ship", "consumer");
    for path in ["/readyz", "/ready"] {
        let answer = ask(addr, "GET", path, "").await;
        let body =
            json!({"status": "starting", "accepting_traffic": false, "reasons": ["consumer 'ship' is starting"]});
        assert_eq!((answer.code, answer.json()), (503, body));
        assert!(answer.head.contains("content-type: application/json"), "{}", answer.head);
    }
    ship.ready();
    app.health.set_stage(Stage::Running);
    let answer = ask(addr, "GET", "/readyz", "").await;
    assert_eq!(answer.body, r#"{"status":"ready","accepting_traffic":true,"reasons":[]}"#);
    assert_eq!(answer.code, 200);
    ship.hindered(Hindrance::Source, "connection refused");
    let answer = ask(addr, "GET", "/readyz", "").await;
    let reasons = json!(["consumer 'ship' is not ready: connection refused"]);
    assert_eq!((answer.code, &answer.json()["status"]), (503, &json!("not_ready")));
    assert_eq!(answer.json()["reasons"], reasons);
    app.health.set_stage(Stage::Stopping);
    let answer = ask(addr, "GET", "/readyz", "").await;
    assert_eq!((answer.code, &answer.json()["status"]), (503, &json!("shutting_down")));
    app.handle.stop().await;
}

#[tokio::test]
async fn health_and_livez_stay_200_without_a_broker_and_while_stopping() {
    let app = app(None).await;
    let addr = app.handle.addr();
    app.health.set_stage(Stage::Running);
    app.health.actor("ship", "consumer").hindered(Hindrance::Source, "connection refused");
    for stage in [Stage::Running, Stage::Stopping] {
        app.health.set_stage(stage);
        let answer = ask(addr, "GET", "/livez", "").await;
        assert_eq!((answer.code, answer.json()), (200, json!({"status": "alive"})));
        let answer = ask(addr, "GET", "/health", "").await;
        assert_eq!((answer.code, &answer.json()["status"]), (200, &json!("alive")));
        assert_eq!(answer.json()["actors"][0]["reason"], "connection refused");
    }
    app.handle.stop().await;
}

/// Asks again until that is answered.
fn until(code: u16, ask: impl Fn() -> Answer) -> Answer {
    let begun = Instant::now();
    loop {
        let answer = ask();
        if answer.code == code {
            return answer;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "still {}: {}", answer.code, answer.body);
    }
}

/// The executor is really stuck: its only thread sits in this function's loop.
#[test]
fn livez_fails_while_the_executor_is_stuck_and_only_then() {
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let app = executor.block_on(app_with("orders", Some(TOKEN), None, Duration::from_millis(300)));
    app.health.set_stage(Stage::Running);
    let addr = app.handle.addr();
    let livez = || client.block_on(ask(addr, "GET", "/livez", ""));

    let stuck = until(503, livez).json();
    assert_eq!((&stuck["status"], &stuck["reason"]), (&json!("stuck"), &json!("the executor does not turn")));
    assert!(stuck["since_ms"].as_u64().unwrap() >= 300);

    // Stuck as it is, it can still be told to stop, and then livez has nothing to say against it.
    let header = format!("Authorization: Bearer {TOKEN}\r\n");
    assert_eq!(client.block_on(ask(addr, "POST", "/shutdown", &header)).code, 200);
    app.health.set_stage(Stage::Stopping);
    assert_eq!(livez().code, 200);
    executor.block_on(app.handle.stop());
}

#[test]
fn livez_recovers_with_the_executor() {
    let executor = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let client = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (app_sent, app) = std::sync::mpsc::channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let spawned = executor.spawn(async move {
        app_sent.send(app_with("orders", None, None, Duration::from_millis(300)).await).unwrap();
        // A handler that blocks the only worker thread.
        released.recv().unwrap();
    });
    let app = app.recv().unwrap();
    let livez = || client.block_on(ask(app.handle.addr(), "GET", "/livez", ""));
    until(503, livez);
    release.send(()).unwrap();
    until(200, livez);
    client.block_on(spawned).unwrap();
    executor.block_on(app.handle.stop());
}

#[tokio::test]
async fn shutdown_needs_the_token_and_tells_the_same_deadline_each_time() {
    let app = app(Some(TOKEN)).await;
    let addr = app.handle.addr();
    for (header, why) in
        [("", "missing"), ("Authorization: Bearer nope\r\n", "wrong"), ("Authorization: Basic x\r\n", "kind")]
    {
        let answer = ask(addr, "POST", "/shutdown", header).await;
        assert_eq!(answer.code, 403);
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(why), "{error}");
        assert!(!answer.body.contains(TOKEN));
    }
    assert_eq!(app.stops.load(Ordering::Relaxed), 0, "a refused request stops nothing");
    for _ in 0..2 {
        let answer = ask(addr, "POST", "/shutdown", &format!("authorization: Bearer {TOKEN}\r\n")).await;
        let body = json!({"status": "shutdown_initiated", "deadline": DEADLINE});
        assert_eq!((answer.code, answer.json()), (200, body));
    }
    assert_eq!(app.stops.load(Ordering::Relaxed), 2);
    app.handle.stop().await;
}

#[tokio::test]
async fn shutdown_is_refused_where_no_token_is_configured() {
    for token in [None, Some("")] {
        let app = app(token).await;
        for header in ["", "Authorization: Bearer \r\n", "Authorization: Bearer x\r\n"] {
            let answer = ask(app.handle.addr(), "POST", "/shutdown", header).await;
            assert_eq!(answer.code, 403);
            assert!(answer.body.contains("LONGSHORE_ADMIN_TOKEN"), "{}", answer.body);
        }
        assert_eq!(app.stops.load(Ordering::Relaxed), 0);
        app.handle.stop().await;
    }
}

#[tokio::test]
async fn a_wrong_method_is_405_and_an_unknown_path_lists_what_there_is() {
    let app = app(Some(TOKEN)).await;
    let addr = app.handle.addr();
    for (method, path, allowed) in [("GET", "/shutdown", "POST"), ("POST", "/livez", "GET"), ("DELETE", "/", "GET")] {
        let answer = ask(addr, method, path, "").await;
        assert_eq!(answer.code, 405);
        assert_eq!(answer.json()["error"], format!("{path} takes {allowed}, not {method}"));
        assert!(answer.head.contains(&format!("allow: {}", allowed.to_lowercase())), "{}", answer.head);
    }
    assert_eq!(app.stops.load(Ordering::Relaxed), 0, "a GET never stops");
    let answer = ask(addr, "GET", "/nope", "").await;
    assert_eq!(answer.code, 404);
    let endpoints =
        json!(["GET /", "GET /livez", "GET /readyz", "GET /ready", "GET /health", "GET /metrics", "POST /shutdown"]);
    assert_eq!(answer.json()["endpoints"], endpoints);
    app.handle.stop().await;
}

#[tokio::test]
async fn the_index_names_the_app_and_lists_endpoints_that_exist() {
    let app = app(None).await;
    let addr = app.handle.addr();
    let answer = ask(addr, "GET", "/", "").await;
    let index = answer.json();
    assert_eq!((answer.code, &index["name"], &index["version"]), (200, &json!("orders"), &json!("1.2.3")));
    for endpoint in index["endpoints"].as_array().unwrap() {
        let (method, path) = (endpoint["method"].as_str().unwrap(), endpoint["path"].as_str().unwrap());
        let code = ask(addr, method, path, "").await.code;
        assert!(code != 404 && code != 405, "{method} {path}: {code}");
    }
    app.handle.stop().await;
}

#[tokio::test]
async fn metrics_are_served_as_prometheus_reads_them() {
    let app = app(None).await;
    telemetry::metrics::WorkerMetrics::new("served").received.increment(3);
    let answer = ask(app.handle.addr(), "GET", "/metrics", "").await;
    assert_eq!(answer.code, 200);
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
    assert!(answer.body.contains("longshore_messages_received_total{worker=\"served\"} 3\n"), "{}", answer.body);
    app.handle.stop().await;
    let app = app_with("orders", None, None, ALIVE_WITHIN).await;
    let answer = ask(app.handle.addr(), "GET", "/metrics", "").await;
    assert_eq!(answer.code, 501);
    assert!(answer.json()["error"].as_str().unwrap().contains("recorder of its own"));
    app.handle.stop().await;
}

/// A stop that waited for one of these clients would wait for ever, or for the 5 s that a head may take.
#[tokio::test]
async fn leaked_connections_do_not_hold_the_stop() {
    let app = app_alone("127.8.0.1").await;
    let addr = app.handle.addr();
    let mut idle = ask_and_stay(addr).await;
    let mut silent = TcpStream::connect(addr).await.unwrap();
    let mut half = TcpStream::connect(addr).await.unwrap();
    half.write_all(b"GET /livez HTTP/1.1\r\nHos").await.unwrap();
    // Connections are accepted in order, so once this is answered the server holds all of them.
    let mut last = ask_and_stay(addr).await;
    let begun = Instant::now();
    app.handle.stop.send_replace(true);
    let mut rest = Vec::new();
    for stream in [&mut idle, &mut silent, &mut half, &mut last] {
        // Whether it ends by an end or a reset: the server closes it before its client does.
        let _ = stream.read_to_end(&mut rest).await;
    }
    assert!(begun.elapsed() < server::HEAD_WITHIN / 2, "they were left to run out of time by themselves");
    app.handle.stop().await;
    assert!(TcpStream::connect(addr).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn connections_past_the_bound_wait_until_one_leaves() {
    let app = app(None).await;
    let addr = app.handle.addr();
    let mut held = Vec::new();
    for _ in 0..server::CONNECTIONS {
        held.push(ask_and_stay(addr).await);
    }
    let mut late = TcpStream::connect(addr).await.unwrap();
    late.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    // Each turn gives the server the occasion to serve the late one too.
    for stream in &mut held {
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert!(stream.read(&mut [0; 512]).await.unwrap() > 0);
    }
    let early = late.try_read(&mut [0; 1]).expect_err("there was no room");
    assert_eq!(early.kind(), std::io::ErrorKind::WouldBlock);
    held.pop();
    assert_eq!(answer(&mut late).await.code, 200);
    app.handle.stop().await;
}

#[tokio::test]
async fn a_dropped_handle_frees_the_address() {
    let app = app_alone("127.8.0.2").await;
    let addr = app.handle.addr();
    let mut client = ask_and_stay(addr).await;
    drop(app);
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
    // The listener is closed at the same time, in no order.
    let begun = Instant::now();
    while TcpStream::connect(addr).await.is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(30), "still listens");
    }
}

#[tokio::test]
async fn two_apps_in_one_process_answer_for_themselves() {
    let (one, two) = (app(None).await, app(Some(TOKEN)).await);
    one.health.set_stage(Stage::Running);
    assert_ne!(one.handle.addr(), two.handle.addr());
    assert_eq!(ask(one.handle.addr(), "GET", "/readyz", "").await.code, 200);
    assert_eq!(ask(two.handle.addr(), "GET", "/readyz", "").await.code, 503);
    one.handle.stop().await;
    assert_eq!(ask(two.handle.addr(), "GET", "/livez", "").await.code, 200);
    two.handle.stop().await;
}

#[tokio::test]
async fn a_huge_body_or_head_is_not_taken_in() {
    let app = app(Some(TOKEN)).await;
    let addr = app.handle.addr();
    let body = "Content-Length: 1000000000000\r\n";
    assert_eq!(ask(addr, "POST", "/shutdown", body).await.code, 403);
    let head = format!("X: {}\r\n", "x".repeat(30_000));
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: x\r\n{head}").as_bytes()).await.unwrap();
    assert_eq!(answer(&mut stream).await.code, 431);
    app.handle.stop().await;
}

#[test]
fn an_address_in_use_is_a_wrong_setting_that_names_itself() {
    let bound = Admin::bind(&free_port()).unwrap().unwrap();
    let taken: AdminListen = bound.addr().to_string().parse().unwrap();
    let error = Admin::bind(&taken).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    let text = error.to_string();
    assert!(text.contains("admin.listen") && text.contains(&bound.addr().to_string()), "{text}");
    let nowhere = Admin::bind(&"no-such-host.invalid:80".parse().unwrap()).err().unwrap();
    assert_eq!(nowhere.kind(), ErrorKind::Configuration);
}

#[test]
fn off_binds_nothing() {
    assert!(Admin::bind(&AdminListen::Off).unwrap().is_none());
}

#[test]
fn the_log_names_the_real_port() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let lines = telemetry::logs::tests::logged(|| drop(runtime.block_on(app_with("orders", None, None, ALIVE_WITHIN))));
    let line = lines.iter().find(|line| line["event"] == "admin_listening").unwrap();
    let addr: SocketAddr = line["addr"].as_str().unwrap().parse().unwrap();
    assert_ne!(addr.port(), 0);
}
