//! TLS: verified always, or nothing is said.

use crate::broker::Bad;
use crate::node::{check, node, refusal};
use longshore::ErrorKind;
use longshore::transport::Side;
use std::io::{Read, Write};
use std::net::TcpListener;

#[tokio::test]
async fn an_authority_of_ones_own_is_believed_and_no_other() {
    let Some(node) = node() else { return };
    let tls = node.tls();
    let (ca, unknown) = (tls.ca(), tls.unknown_ca());
    check(&format!("{}?queue=q&ca={}", tls.url, ca.display()), Side::Source).await.unwrap();
    for options in [format!("&ca={}", unknown.display()), String::new()] {
        let error = refusal(&format!("{}?queue=q{options}", tls.url), Side::Source).await;
        assert_eq!((error.kind(), error.exit_code()), (ErrorKind::Credentials, 77), "{error:?}");
        assert!(error.to_string().contains("TLS"), "{error}");
    }
    let error = refusal(&format!("{}?queue=q&ca=/nowhere.pem", tls.url), Side::Source).await;
    assert!(error.to_string().contains("option 'ca=/nowhere.pem'"), "{error}");
}

#[tokio::test]
async fn a_certificate_logs_in_by_itself_and_only_as_who_it_is() {
    let Some(node) = node() else { return };
    let tls = node.tls();
    let url = |name: &str, auth: &str| {
        let (cert, key) = tls.client(name);
        let files = format!("ca={}&cert={}&cert-key={}", tls.ca().display(), cert.display(), key.display());
        format!("amqps://localhost:{}?queue=q&{files}{auth}", tls.port)
    };
    check(&url("client", "&auth=external"), Side::Source).await.unwrap();
    // The same certificate beside a password.
    check(&url("client", ""), Side::Source).await.unwrap();
    let error = refusal(&url("nobody", "&auth=external"), Side::Source).await;
    assert_eq!(error.kind(), ErrorKind::Credentials, "{error:?}");
    // The server's alert says why, and the reset of the connection behind it may overtake it: then it is tried again.
    for _ in 0..100 {
        let error = refusal(&url("unknown-client", "&auth=external"), Side::Source).await;
        match error.kind() {
            ErrorKind::Credentials => return,
            kind => assert_eq!(kind, ErrorKind::Unreachable, "{error:?}"),
        }
    }
    panic!("a certificate that the server does not know is never said to be refused");
}

#[tokio::test]
async fn a_server_that_cannot_be_believed_is_told_nothing() {
    let Some(node) = node() else { return };
    let tls = node.tls();
    let ca = tls.ca();
    for bad in [Bad::Expired, Bad::WrongHost, Bad::UnknownAuthority] {
        let server = tls.impostor(bad);
        let url = format!("amqps://guest:canary@localhost:{}?queue=q&ca={}", server.port, ca.display());
        let error = refusal(&url, Side::Sink).await;
        assert_eq!((error.kind(), error.exit_code()), (ErrorKind::Credentials, 77), "{bad:?}: {error:?}");
        assert!(!error.to_string().contains("canary"), "{error}");
        assert!(!server.was_believed(), "{bad:?}");
    }
}

#[tokio::test]
async fn amqps_never_speaks_in_plain_text() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let heard = std::thread::spawn(move || {
        let (mut client, _) = server.accept().unwrap();
        let mut all = vec![0; 4096];
        let len = client.read(&mut all).unwrap();
        all.truncate(len);
        // A broker that speaks plain text.
        let _ = client.write_all(b"AMQP\x00\x00\x09\x01");
        let _ = client.read_to_end(&mut all);
        all
    });
    let error = refusal(&format!("amqps://guest:canary@127.0.0.1:{port}?queue=q"), Side::Source).await;
    assert_eq!(error.kind(), ErrorKind::Credentials, "{error:?}");
    let heard = heard.join().unwrap();
    // The first byte of a TLS handshake, and nothing of ours.
    assert_eq!(heard[0], 0x16);
    for secret in [&b"AMQP"[..], b"canary", b"guest"] {
        assert!(!heard.windows(secret.len()).any(|some| some == secret));
    }
}
