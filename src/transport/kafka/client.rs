//! How clients of librdkafka are set up. What a URL passes on beats these defaults; what a promise stands on beats both,
//! and cannot be passed on ([`settings`](super::settings)).

use super::context::cluster_name;
use super::place::{Place, Protocol, Start, Tls};
use super::refusal::explain;
use crate::error::{Error, ErrorKind};
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use std::path::Path;

/// The largest record that is sent: a broker reads no request over 100 MiB (`socket.request.max.bytes`), and cuts the
/// connection of who sends one, for ever again. Below it the topic's `max.message.bytes` decides, and says so.
const MESSAGE_MAX_BYTES: u64 = (100 << 20) - (64 << 10);

/// Defaults of every client.
const EVERY: [(&str, &str); 4] = [
    // A request that is not answered for so long ends its connection: twice the 10 s after which others call a peer dead.
    ("socket.timeout.ms", "20000"),
    ("socket.keepalive.enable", "true"),
    // Both as the contract says of every reconnect; librdkafka adds its own jitter.
    ("reconnect.backoff.ms", "100"),
    ("reconnect.backoff.max.ms", "10000"),
];

/// Defaults of a consumer.
const CONSUMER: [(&str, &str); 3] = [
    // At 1,000, librdkafka's default, a reader a little slower than the fetch stalls for a second.
    ("fetch.queue.backoff.ms", "10"),
    // A new partition is seen within it, and a topic that a pattern matches.
    ("topic.metadata.refresh.interval.ms", "30000"),
    ("metadata.max.age.ms", "90000"),
];

/// Defaults of a member of a group that agrees among its members.
const CLASSIC: [(&str, &str); 2] = [
    // Until somebody else reads what a killed member had: 45 s by librdkafka's default.
    ("session.timeout.ms", "10000"),
    ("partition.assignment.strategy", "cooperative-sticky"),
];

/// Defaults of a producer.
const PRODUCER: [(&str, &str); 1] = [
    // What the broker waits for its replicas; less than a request may take.
    ("request.timeout.ms", "10000"),
];

/// Bytes of a batch without its records, with room for what a later version of the protocol adds.
const BATCH_OVERHEAD: u32 = 512;
/// The largest batch where the topic takes more: librdkafka's default.
const BATCH_SIZE: u32 = 1_000_000;

/// What the promises of a producer stand on.
const PRODUCER_ALWAYS: [(&str, &str); 5] = [
    ("enable.idempotence", "true"),
    ("acks", "all"),
    // As Java does, so that a key is in the same partition whoever wrote it.
    ("partitioner", "murmur2_random"),
    // For ever: a record waits for the end of an outage, as a timeout would leave open whether it is stored.
    ("message.timeout.ms", "0"),
    // One that is deleted is not made again by a write to it.
    ("allow.auto.create.topics", "false"),
];

/// What the promises of a consumer stand on.
const CONSUMER_ALWAYS: [(&str, &str); 4] = [
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("enable.partition.eof", "false"),
    ("allow.auto.create.topics", "false"),
];

/// For a client that asks and administers: metadata, topics, groups. Also the part that all others share.
pub(super) fn admin(place: &Place, worker: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    set(&mut config, &EVERY);
    config.set("client.id", worker).set("allow.auto.create.topics", "false");
    config.set_log_level(RDKafkaLogLevel::Info);
    cluster(&mut config, place);
    config
}

/// For a producer, which is idempotent and waits for all replicas. `largest` is the largest batch that its topic takes, in
/// bytes: a broker refuses a larger one as a whole, so that a record that is too large has to lie in a batch of its own.
pub(super) fn producer(place: &Place, worker: &str, largest: u32) -> ClientConfig {
    let mut config = base(place, worker, &PRODUCER);
    if config.get("batch.size").is_none() {
        let size = largest.saturating_sub(BATCH_OVERHEAD).clamp(1, BATCH_SIZE);
        config.set("batch.size", size.to_string());
    }
    if config.get("message.max.bytes").is_none() {
        config.set("message.max.bytes", MESSAGE_MAX_BYTES.to_string());
    }
    set(&mut config, &PRODUCER_ALWAYS);
    config
}

/// For a consumer that is a member of a group: it subscribes, and commits.
///
/// `queued_kbytes` bounds what is fetched ahead, in KiB, of each partition.
pub(super) fn member(place: &Place, worker: &str, group: &str, queued_kbytes: u32) -> ClientConfig {
    let classic: &[_] = if place.protocol == Protocol::Classic { &CLASSIC } else { &[] };
    let mut config = base(place, worker, &[&CONSUMER, classic].concat());
    consumer(&mut config, place, group, queued_kbytes);
    match place.protocol {
        Protocol::Classic => config.set("group.protocol", "classic"),
        Protocol::Consumer => config.set("group.protocol", "consumer"),
    };
    if let Some(instance) = &place.instance {
        config.set("group.instance.id", instance);
    }
    config
}

/// For a consumer of the same group that never subscribes: it reads what it is told to, and is no member.
///
/// `queued_kbytes` bounds what is fetched ahead, in KiB, of each partition.
pub(super) fn reader(place: &Place, worker: &str, group: &str, queued_kbytes: u32) -> ClientConfig {
    let mut config = base(place, worker, &CONSUMER);
    // Of members alone; the last of them is checked against the first where that is not set, too.
    for name in ["session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy", "max.poll.interval.ms"]
    {
        config.remove(name);
    }
    consumer(&mut config, place, group, queued_kbytes);
    config
}

fn consumer(config: &mut ClientConfig, place: &Place, group: &str, queued_kbytes: u32) {
    set(config, &CONSUMER_ALWAYS);
    config.set("group.id", group);
    config.set("queued.max.messages.kbytes", queued_kbytes.max(1).to_string());
    config.set("isolation.level", if place.read_uncommitted { "read_uncommitted" } else { "read_committed" });
    // Of a group that has no place, or whose place is gone. An offset or a time is looked up, and begins there.
    let latest = place.start == Some(Start::Latest);
    config.set("auto.offset.reset", if latest { "latest" } else { "earliest" });
}

/// Everything but what a promise stands on: defaults of all and of `more`, then what the URL passes on.
fn base(place: &Place, worker: &str, more: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    set(&mut config, &EVERY);
    set(&mut config, more);
    config.set("client.id", worker);
    cluster(&mut config, place);
    config.set_log_level(match config.get("debug").is_some() {
        true => RDKafkaLogLevel::Debug,
        false => RDKafkaLogLevel::Info,
    });
    config
}

/// Where it connects and as whom, and what the URL passes on.
fn cluster(config: &mut ClientConfig, place: &Place) {
    for (name, value) in &place.settings {
        config.set(name, value.reveal());
    }
    config.set("bootstrap.servers", place.cluster.hosts.join(","));
    let protocol = match (&place.cluster.tls, &place.cluster.login) {
        (None, None) => "plaintext",
        (None, Some(_)) => "sasl_plaintext",
        (Some(_), None) => "ssl",
        (Some(_), Some(_)) => "sasl_ssl",
    };
    config.set("security.protocol", protocol);
    if let Some(login) = &place.cluster.login {
        config.set("sasl.mechanism", login.mechanism);
        config.set("sasl.username", &login.user);
        config.set("sasl.password", login.password.reveal());
    }
    if let Some(Tls { ca, cert, key }) = &place.cluster.tls {
        config.set("enable.ssl.certificate.verification", "true");
        config.set("ssl.endpoint.identification.algorithm", "https");
        for (name, path) in [("ssl.ca.location", ca), ("ssl.certificate.location", cert), ("ssl.key.location", key)] {
            if let Some(path) = path {
                config.set(name, path.to_string_lossy());
            }
        }
    }
}

fn set(config: &mut ClientConfig, settings: &[(&str, &str)]) {
    for (name, value) in settings {
        config.set(*name, *value);
    }
}

/// Makes a client, which starts its threads and connects by itself. May block for a moment: it reads certificates.
///
/// # Errors
/// [`ErrorKind::Credentials`] for a certificate, key or CA that cannot be read, [`ErrorKind::Configuration`] for settings
/// that do not go together.
pub(super) fn create<C, T>(config: &ClientConfig, context: C, place: &Place) -> Result<T, Error>
where
    C: ClientContext,
    T: FromClientConfigAndContext<C>,
{
    if let Some(Tls { ca, cert, key }) = &place.cluster.tls {
        for (option, path) in [("ca", ca), ("cert", cert), ("cert-key", key)] {
            path.as_deref().map_or(Ok(()), |path| readable(option, path))?;
        }
    }
    config.create_with_context(context).map_err(|error| explain(cluster_name(place), &error))
}

/// The client library says of a file that it cannot read no more than that.
fn readable(option: &str, path: &Path) -> Result<(), Error> {
    std::fs::File::open(path).map(drop).map_err(|why| {
        let text = format!("option '{option}={}' cannot be read", path.display());
        Error::new(ErrorKind::Credentials, text).caused_by(why)
    })
}

/// Says of a login that goes over the network as it is that it does.
pub(super) fn warn_of_plain_login(place: &Place, worker: &str) {
    if let (Some(login), None) = (&place.cluster.login, &place.cluster.tls) {
        let user = &*login.user;
        tracing::warn!(
            worker,
            user,
            "the login goes over the network without TLS: kafkas:// has it; url={}",
            place.shown
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::context::Ear;
    use super::*;
    use crate::transport::{Side, Url};
    use rdkafka::consumer::BaseConsumer;
    use rdkafka::producer::BaseProducer;

    fn place(text: &str) -> Place {
        Place::read(&Url::parse(text).unwrap(), Side::Source).unwrap()
    }

    fn ear(place: &Place) -> Ear {
        Ear::new("ship".into(), place)
    }

    /// Nothing listens on port 1: making a client waits for nobody.
    #[test]
    fn every_client_can_be_made_of_its_settings() {
        for url in [
            "kafka://localhost:1?topic=t",
            "kafka://me:secret@localhost:1?topic=t&auth=scram-sha-256&instance=i&session.timeout.ms=6000",
            "kafka://localhost:1?topic=t&protocol=consumer&instance=i&linger.ms=0",
            "kafkas://localhost:1?topic=t&message.max.bytes=1000000",
        ] {
            let place = place(url);
            create::<_, BaseProducer<Ear>>(&producer(&place, "ship", 1_000), ear(&place), &place).expect(url);
            create::<_, BaseProducer<Ear>>(&admin(&place, "ship"), ear(&place), &place).expect(url);
            create::<_, BaseConsumer<Ear>>(&member(&place, "ship", "g", 1_024), ear(&place), &place).expect(url);
            create::<_, BaseConsumer<Ear>>(&reader(&place, "ship", "g", 1_024), ear(&place), &place).expect(url);
        }
    }

    #[test]
    fn what_is_passed_on_beats_a_default_and_nothing_else() {
        let place = place("kafka://h?topic=t&session.timeout.ms=6000&linger.ms=0&socket.timeout.ms=5000");
        let member = member(&place, "ship", "g", 1);
        assert_eq!((member.get("session.timeout.ms"), member.get("socket.timeout.ms")), (Some("6000"), Some("5000")));
        assert_eq!(member.get("enable.auto.commit"), Some("false"));
        let producer = producer(&place, "ship", 1_000);
        assert_eq!((producer.get("linger.ms"), producer.get("acks")), (Some("0"), Some("all")));
        assert_eq!(reader(&place, "ship", "g", 1).get("session.timeout.ms"), None);
    }

    #[test]
    fn tls_is_verified_by_certificate_and_host_name() {
        let config = admin(&place("kafkas://me:secret@h?topic=t&ca=my-ca.pem"), "ship");
        assert_eq!(config.get("security.protocol"), Some("sasl_ssl"));
        assert_eq!(config.get("enable.ssl.certificate.verification"), Some("true"));
        assert_eq!(config.get("ssl.endpoint.identification.algorithm"), Some("https"));
        assert_eq!(config.get("ssl.ca.location"), Some("my-ca.pem"));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named_with_its_option() {
        let place = place("kafkas://h?topic=t&ca=/nowhere/ca.pem");
        let made = create::<_, BaseProducer<Ear>>(&producer(&place, "ship", 1_000), ear(&place), &place);
        let error = made.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Credentials);
        assert!(error.to_string().contains("option 'ca=/nowhere/ca.pem'"), "{error}");
    }
}
