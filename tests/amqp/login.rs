//! Who may do what.

use crate::node::{check, node, refusal};
use crate::proxy::Proxy;
use crate::raw::{Life, Raw};
use longshore::ErrorKind;
use longshore::transport::Side;

const CANARY: &str = "ca/na?ry@7 x";
/// As it stands in a URL.
const ESCAPED: &str = "ca%2Fna%3Fry%407%20x";

/// A user with these rights to configure, write and read.
fn user(node: &crate::broker::Own, rights: [&str; 3]) -> String {
    let user = node.fresh("user");
    node.ctl(&["add_user", &user, CANARY]);
    node.ctl(&[&["set_permissions", &user], &rights[..]].concat());
    user
}

#[tokio::test]
async fn a_wrong_password_or_vhost_is_refused_at_once_and_named_without_the_password() {
    let Some(node) = node() else { return };
    let way = Proxy::to(node.port()).await;
    let user = user(node, [".*", ".*", ".*"]);
    let at = format!("127.0.0.1:{}", way.port());
    for (login, vhost, named) in [
        (format!("{user}:wrong-{ESCAPED}"), "", user.as_str()),
        (format!("nobody:{ESCAPED}"), "", "nobody"),
        (format!("{user}:{ESCAPED}"), "/nowhere", "nowhere"),
    ] {
        let before = way.accepted();
        let error = refusal(&format!("amqp://{login}@{at}{vhost}?queue=q"), Side::Source).await;
        assert_eq!((error.kind(), error.exit_code()), (ErrorKind::Credentials, 77), "{error:?}");
        let said = format!("{error} {error:?}");
        assert!(said.contains(named) && said.contains(&at), "{said}");
        assert!(!said.contains(CANARY) && !said.contains(ESCAPED), "{said}");
        assert_eq!(way.accepted() - before, 1, "tried again: {error}");
    }
}

#[tokio::test]
async fn a_password_comes_from_the_environment_or_a_file() {
    let Some(node) = node() else { return };
    let user = user(node, [".*", ".*", ".*"]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, format!("{CANARY}\n")).unwrap();
    let at = format!("127.0.0.1:{}?queue=q", node.port());
    check(&format!("amqp://{user}:${{file:{}}}@{at}", file.display()), Side::Source).await.unwrap();
    check(&format!("amqp://{user}:{ESCAPED}@{at}"), Side::Source).await.unwrap();
    std::fs::write(&file, "another").unwrap();
    let error = refusal(&format!("amqp://{user}:${{file:{}}}@{at}", file.display()), Side::Source).await;
    assert_eq!(error.kind(), ErrorKind::Credentials);
}

#[tokio::test]
async fn a_permission_that_is_missing_is_named_with_what_it_is_for() {
    let Some(node) = node() else { return };
    let raw = Raw::connect(node.url()).await;
    let queue = node.fresh("guarded");
    raw.declare(&queue, Life::Durable, &[]).await;
    let url = |user: &str, options: &str| format!("amqp://{user}:{ESCAPED}@127.0.0.1:{}?{options}", node.port());
    let (there, absent) = (format!("queue={queue}"), format!("queue={queue}.absent"));
    let refused = async |user: &str, options: &str, side, named: &str| {
        let error = refusal(&url(user, options), side).await;
        assert_eq!(error.kind(), ErrorKind::Credentials, "{error:?}");
        assert!(error.to_string().contains(named) && error.to_string().contains(user), "{error}");
    };

    let reader = user(node, ["^$", "^$", ".*"]);
    check(&url(&reader, &there), Side::Source).await.unwrap();
    refused(&reader, &absent, Side::Source, &format!("{queue}.absent")).await;
    refused(&reader, &there, Side::Sink, "the default exchange").await;
    refused(&reader, "exchange=amq.topic", Side::Sink, "amq.topic").await;

    let writer = user(node, ["^$", ".*", "^$"]);
    check(&url(&writer, &there), Side::Sink).await.unwrap();
    check(&url(&writer, "exchange=amq.topic"), Side::Sink).await.unwrap();
    refused(&writer, &there, Side::Source, &queue).await;
}
