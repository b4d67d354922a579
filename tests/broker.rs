//! What tests with a real broker rely on: the node, the network between, and that each does what it is told.

#[path = "support/broker.rs"]
mod broker;
#[path = "support/proxy.rs"]
mod proxy;

use broker::{Bad, Depth, greets};
use proxy::{Flow, Proxy};
use std::io::Write;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

/// Whoever waits longer has found a hang.
const PATIENCE: Duration = Duration::from_secs(30);
/// So long nothing may arrive where nothing can: a fault is seen with near certainty, and no good run fails by it.
const SILENCE: Duration = Duration::from_millis(200);

const DECLARE: &str = "\
    rabbit_amqqueue:declare({resource, <<\"/\">>, queue, <<\"NAME\">>}, true, false, \
        [{<<\"x-queue-type\">>, longstr, <<\"TYPE\">>}], none, <<\"test\">>), ok.";

fn declare(node: &broker::Broker, queue: &str, kind: &str) {
    node.ctl(&["eval", &DECLARE.replace("NAME", queue).replace("TYPE", kind)]);
}

const EMPTY: Option<Depth> = Some(Depth { ready: 0, unacked: 0 });

#[test]
fn a_node_keeps_its_queues_when_it_is_killed_and_none_when_it_is_reset() {
    let Some(node) = broker::own(&[]) else { return };
    declare(&node, "kept", "quorum");
    declare(&node, "old", "classic");
    assert_eq!((node.depth("kept"), node.depth("old"), node.depth("none")), (EMPTY, EMPTY, None));
    // A quorum queue whose node is killed within a second of its declaration may never have a leader again (3.10.8).
    node.restart();
    node.freeze();
    assert!(!greets(node.port(), SILENCE), "a frozen node answers");
    node.thaw();
    assert!(greets(node.port(), PATIENCE), "a node does not answer after it was thawed");
    node.freeze();
    node.kill();
    assert!(!greets(node.port(), PATIENCE), "a killed node answers");
    node.restart();
    assert_eq!((node.depth("kept"), node.depth("old")), (EMPTY, EMPTY));
    node.reset();
    assert_eq!((node.depth("kept"), node.depth("old")), (None, None));
}

#[test]
fn a_node_with_tls_is_believed_and_its_impostors_can_be_told_apart() {
    let Some(node) = broker::own(&["--tls"]) else { return };
    let tls = node.tls();
    let verify = |port: u16, ca: &std::path::Path| {
        let mut client = std::process::Command::new("openssl");
        client.args(["s_client", "-verify_return_error", "-verify_hostname", "localhost", "-quiet"]);
        client.args(["-connect", &format!("127.0.0.1:{port}"), "-CAfile"]).arg(ca);
        client.stdin(std::process::Stdio::null()).output().unwrap()
    };
    let why = |port, ca: &std::path::Path| String::from_utf8_lossy(&verify(port, ca).stderr).into_owned();
    assert!(why(tls.port, &tls.unknown_ca()).contains("verify error"));
    assert!(!why(tls.port, &tls.ca()).contains("verify error"));
    for (bad, said) in [
        (Bad::Expired, "certificate has expired"),
        (Bad::WrongHost, "hostname mismatch"),
        (Bad::UnknownAuthority, "unable to get local issuer certificate"),
    ] {
        let impostor = tls.impostor(bad);
        let why = why(impostor.port, &tls.ca());
        assert!(why.contains(said), "{bad:?}: {why}");
        assert!(!impostor.was_believed());
    }
    // Who does not look believes it, and that is seen.
    let impostor = tls.impostor(Bad::UnknownAuthority);
    let mut careless = std::process::Command::new("openssl")
        .args(["s_client", "-quiet", "-connect", &format!("127.0.0.1:{}", impostor.port)])
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    careless.stdin.take().unwrap().write_all(b"AMQP").unwrap();
    let began = std::time::Instant::now();
    while !impostor.was_believed() {
        assert!(began.elapsed() < PATIENCE, "an impostor does not hear what it is told");
        std::thread::sleep(Duration::from_millis(5));
    }
    careless.kill().unwrap();
    careless.wait().unwrap();
}

/// A server that sends back what it gets, and ends a connection when its client does.
async fn echo() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    port
}

async fn connect(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap()
}

/// Sends some and gets it back.
async fn round(stream: &mut TcpStream, what: &[u8]) {
    stream.write_all(what).await.unwrap();
    let mut back = vec![0; what.len()];
    timeout(PATIENCE, stream.read_exact(&mut back)).await.unwrap().unwrap();
    assert_eq!(back, what);
}

#[tokio::test]
async fn the_proxy_passes_what_it_gets_and_an_end_of_one_side_too() {
    let proxy = Proxy::to(echo().await).await;
    let mut stream = connect(&proxy).await;
    let much: Vec<u8> = (0..1_000_000_u32).map(|n| n as u8).collect();
    let (mut from, mut to) = stream.split();
    let mut back = Vec::new();
    let (sent, got) = tokio::join!(
        async {
            to.write_all(&much).await?;
            to.shutdown().await
        },
        timeout(PATIENCE, from.read_to_end(&mut back)),
    );
    sent.unwrap();
    got.unwrap().unwrap();
    assert!(back == much, "the bytes changed on their way");
    assert_eq!((proxy.to_server(), proxy.to_client(), proxy.accepted()), (1_000_000, 1_000_000, 1));
}

#[tokio::test]
async fn what_lies_in_a_black_hole_arrives_when_the_network_heals() {
    let proxy = Proxy::to(echo().await).await;
    let mut stream = connect(&proxy).await;
    round(&mut stream, b"before").await;
    for (to_server, to_client) in [(Flow::Hole, Flow::Hole), (Flow::Hole, Flow::Pass), (Flow::Pass, Flow::Hole)] {
        proxy.set(to_server, to_client);
        stream.write_all(b"held").await.unwrap();
        let mut back = [0; 4];
        assert!(timeout(SILENCE, stream.read_exact(&mut back)).await.is_err(), "it passed {to_server:?} {to_client:?}");
        proxy.heal();
        timeout(PATIENCE, stream.read_exact(&mut back)).await.unwrap().unwrap();
        assert_eq!(&back, b"held");
    }
}

#[tokio::test]
async fn a_reset_and_a_cut_end_what_is_open_and_nothing_that_comes_later() {
    let proxy = Proxy::to(echo().await).await;
    let mut stream = connect(&proxy).await;
    round(&mut stream, b"before").await;
    proxy.reset();
    let error = timeout(PATIENCE, stream.read(&mut [0; 1])).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

    let mut stream = connect(&proxy).await;
    round(&mut stream, b"again").await;
    proxy.black_hole();
    proxy.cut();
    assert_eq!(timeout(PATIENCE, stream.read(&mut [0; 1])).await.unwrap().unwrap(), 0);

    proxy.heal();
    proxy.refuse();
    let refused = async { connect(&proxy).await.read(&mut [0; 1]).await };
    assert!(timeout(PATIENCE, refused).await.unwrap().is_err());
    proxy.heal();
    round(&mut connect(&proxy).await, b"healed").await;
}

#[tokio::test]
async fn a_slow_network_keeps_the_order_and_a_sliced_one_every_byte() {
    const BY: Duration = Duration::from_millis(50);
    let proxy = Proxy::to(echo().await).await;
    let mut stream = connect(&proxy).await;
    proxy.set(Flow::Late(BY, BY), Flow::Late(BY, BY));
    let began = Instant::now();
    for n in 0..100_u8 {
        stream.write_all(&[n]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut back = [0; 100];
    timeout(PATIENCE, stream.read_exact(&mut back)).await.unwrap().unwrap();
    assert!(began.elapsed() >= 2 * BY, "it was not late");
    assert!(back.iter().copied().eq(0..100), "{back:?}");
    proxy.set(Flow::Sliced(3), Flow::Sliced(1));
    round(&mut stream, &[7; 5_000]).await;
}
