//! What a URL says: `amqp://user@host/vhost?queue=orders`, or `?exchange=x&routing_key=k`.

use super::dial::Server;
use super::tls::Tls;
use crate::error::Error;
use crate::transport::{KeyFrom, Options, Url};
use std::path::PathBuf;
use std::time::Duration;

/// What the broker allows a delivery to stay unsettled, unless `consumer_timeout=` says otherwise: RabbitMQ's default.
pub(super) const CONSUMER_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// A peer that is silent for twice as long is dead, unless `heartbeat=` says otherwise.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(10);

/// The type of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QueueType {
    Quorum,
    Classic,
    Stream,
}

impl QueueType {
    /// As the argument `x-queue-type` names it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Quorum => "quorum",
            Self::Classic => "classic",
            Self::Stream => "stream",
        }
    }
}

/// Where the routing key of a published message comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RoutingKey {
    /// Always this: `routing_key=K`, or the queue's name.
    Fixed(String),
    /// A header of the message: `routing-key-from=header:NAME`.
    Header(String),
    /// The key of the message: `routing-key-from=key`.
    Key,
}

/// What a URL of this transport says.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) server: Server,
    /// As it is shown, without a secret.
    pub(super) shown: String,
    /// Empty for a sink that publishes to an exchange.
    pub(super) queue: String,
    /// Empty for the default exchange.
    pub(super) exchange: String,
    /// On a source with an exchange: what its queue is bound by.
    pub(super) routing_key: RoutingKey,
    pub(super) key: KeyFrom,
    /// What an absent queue is declared as; `None` where the URL does not say, which means quorum.
    pub(super) queue_type: Option<QueueType>,
    pub(super) prefetch: Option<u16>,
    pub(super) declare: bool,
    pub(super) single_active: bool,
    pub(super) consumer_timeout: Duration,
    /// `http://user:password@host:15672` of the management plugin, where given.
    pub(super) management: Option<String>,
    /// Priority of this consumer among those of its queue.
    pub(super) priority: Option<i32>,
    /// Priorities that a classic queue which is declared shall know.
    pub(super) max_priority: Option<u8>,
    /// Whether a queue that is declared refuses publishes when it is full, instead of dropping its head.
    pub(super) rejects_when_full: bool,
    /// Where reading of a stream starts.
    pub(super) start: Option<String>,
    /// Looking into a queue with a delivery limit may count as a delivery.
    pub(super) counts_as_delivery: bool,
}

/// Which side of a place is asked for: some options make sense on one alone.
pub(super) use crate::transport::Side;

impl Place {
    pub(super) fn read(url: &Url, side: Side) -> Result<Self, Error> {
        let options = url.options();
        let place = Self::from_options(url, &options, side);
        options.finish().map_err(|error| error.of(format_args!("'{url}'")))?;
        Ok(place)
    }

    fn from_options(url: &Url, options: &Options<'_>, side: Side) -> Self {
        let queue = options.text("queue").unwrap_or_default().to_owned();
        let exchange = options.text("exchange").unwrap_or_default().to_owned();
        if queue.is_empty() && (side == Side::Source || exchange.is_empty()) {
            options.wrong(match side {
                Side::Source => "option 'queue' is missing".into(),
                Side::Sink => "option 'queue' or 'exchange' is missing".into(),
            });
        }
        if side == Side::Sink && !queue.is_empty() && !exchange.is_empty() {
            options.wrong("options 'queue' and 'exchange' exclude each other in a sink".into());
        }
        for (name, value) in [("queue", &queue), ("exchange", &exchange)] {
            if value.len() > usize::from(u8::MAX) {
                options.wrong(format!("option '{name}' is longer than 255 bytes"));
            }
        }
        let routing_key = routing_key(options, &queue, &exchange);
        if matches!(&routing_key, RoutingKey::Fixed(key) if key.len() > usize::from(u8::MAX)) && queue.len() <= 255 {
            options.wrong("option 'routing_key' is longer than 255 bytes".into());
        }
        let key = KeyFrom::parse(options.text("key")).unwrap_or_else(|error| {
            options.wrong(error.to_string());
            KeyFrom::Message
        });
        let queue_type = options.one_of("type", &["quorum", "classic", "stream"]).map(|name| match name {
            "classic" => QueueType::Classic,
            "stream" => QueueType::Stream,
            _ => QueueType::Quorum,
        });
        let prefetch = options.parsed::<u16>("prefetch", "a number of messages from 1 to 65535");
        if prefetch == Some(0) {
            options.wrong("option 'prefetch=0' would put no bound on what is delivered".into());
        }
        let max_priority = options.parsed::<u8>("max-priority", "a number from 1 to 255");
        if max_priority.is_some() && queue_type != Some(QueueType::Classic) {
            options.wrong("option 'max-priority' needs 'type=classic': only classic queues know priorities".into());
        }
        let start = options.text("start").map(str::to_owned);
        if start.is_some() && queue_type != Some(QueueType::Stream) {
            options.wrong("option 'start' needs 'type=stream'".into());
        }
        if side == Side::Source && !exchange.is_empty() && options.text("routing-key-from").is_some() {
            options.wrong("option 'routing-key-from' is for sinks: a queue is bound by 'routing_key'".into());
        }
        let management = options.text("management").map(str::to_owned);
        if let Some(wrong) = management.as_deref().and_then(super::management::wrong) {
            options.wrong(wrong);
        }
        let consumer_timeout = options.duration("consumer_timeout").unwrap_or(CONSUMER_TIMEOUT);
        Self {
            server: server(url, options),
            shown: url.to_string(),
            queue,
            exchange,
            routing_key,
            key,
            queue_type,
            prefetch,
            declare: options.bool("declare").unwrap_or(true),
            single_active: options.bool("single-active").unwrap_or(false),
            consumer_timeout,
            management,
            priority: options.parsed("priority", "a number"),
            max_priority,
            rejects_when_full: options.one_of("overflow", &["drop-head", "reject-publish"]) == Some("reject-publish"),
            start,
            counts_as_delivery: options.bool("count-as-delivery").unwrap_or(false),
        }
    }

    /// The type that an absent queue is declared as.
    pub(super) fn declared_type(&self) -> QueueType {
        self.queue_type.unwrap_or(QueueType::Quorum)
    }
}

fn routing_key(options: &Options<'_>, queue: &str, exchange: &str) -> RoutingKey {
    let fixed = options.text("routing_key");
    let from = options.text("routing-key-from");
    if exchange.is_empty() && (fixed.is_some() || from.is_some()) {
        options.wrong("options 'routing_key' and 'routing-key-from' need 'exchange'".into());
    }
    if fixed.is_some() && from.is_some() {
        options.wrong("options 'routing_key' and 'routing-key-from' exclude each other".into());
    }
    match from {
        None => RoutingKey::Fixed(fixed.unwrap_or(queue).to_owned()),
        Some("key") => RoutingKey::Key,
        Some(text) => match text.strip_prefix("header:") {
            Some(name) if !name.is_empty() => RoutingKey::Header(name.to_owned()),
            _ => {
                options.wrong(format!("option 'routing-key-from={text}' is neither key nor header:NAME"));
                RoutingKey::Key
            }
        },
    }
}

/// Where to connect and as whom.
fn server(url: &Url, options: &Options<'_>) -> Server {
    let tls = url.scheme() == "amqps";
    let default_port = if tls { 5671 } else { 5672 };
    let mut hosts = Vec::new();
    for host in url.hosts() {
        match host_and_port(host, default_port) {
            Some(host) => hosts.push(host),
            // Not shown: it may be a part of a password whose '/' or '@' was not escaped.
            None => options.wrong("a host is not host or host:port; escape '/', '?' and '@' in a password".into()),
        }
    }
    if url.hosts().is_empty() {
        options.wrong("a broker needs a host, such as amqp://localhost?queue=orders".into());
    }
    let path = |name| options.text(name).map(PathBuf::from);
    let (ca, cert, key) = (path("ca"), path("cert"), path("cert-key"));
    let external = options.one_of("auth", &["plain", "external"]) == Some("external");
    if !tls && (ca.is_some() || cert.is_some() || key.is_some() || external) {
        options.wrong("options 'ca', 'cert', 'cert-key' and 'auth=external' need the scheme amqps".into());
    }
    if cert.is_some() != key.is_some() {
        options.wrong("options 'cert' and 'cert-key' need each other".into());
    }
    if external && cert.is_none() {
        options.wrong("option 'auth=external' needs 'cert' and 'cert-key'".into());
    }
    let heartbeat = options.duration("heartbeat").unwrap_or(HEARTBEAT);
    if heartbeat < Duration::from_secs(1) {
        options.wrong("option 'heartbeat' is below 1 s".into());
    }
    Server {
        hosts,
        vhost: if url.path().is_empty() { "/".to_owned() } else { url.path().to_owned() },
        user: url.user().unwrap_or("guest").to_owned(),
        password: url.password().cloned().unwrap_or_else(|| crate::transport::Secret::new("guest")),
        external,
        tls: tls.then_some(Tls { ca, cert, key }),
        heartbeat,
    }
}

/// `host`, `host:port`, `[::1]`, `[::1]:port`.
fn host_and_port(text: &str, default_port: u16) -> Option<(String, u16)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host.to_owned(), port.parse().ok()?)),
            None => rest.is_empty().then(|| (host.to_owned(), default_port)),
        };
    }
    match text.split_once(':') {
        Some((host, port)) => Some((host.to_owned(), port.parse().ok()?)),
        None => Some((text.to_owned(), default_port)),
    }
    .filter(|(host, _)| !host.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, side: Side) -> Result<Place, String> {
        Place::read(&Url::parse(text).unwrap(), side).map_err(|error| error.to_string())
    }

    #[test]
    fn no_path_and_an_escaped_slash_are_the_default_vhost() {
        for (text, vhost) in
            [("amqp://h?queue=q", "/"), ("amqp://h/%2F?queue=q", "/"), ("amqp://h/shop?queue=q", "shop")]
        {
            assert_eq!(read(text, Side::Source).unwrap().server.vhost, vhost, "{text}");
        }
    }

    #[test]
    fn ports_follow_the_scheme_and_hosts_may_be_several() {
        let place = read("amqps://h1,h2:1,[::1],[::1]:2?queue=q", Side::Source).unwrap();
        let hosts: Vec<(&str, u16)> = place.server.hosts.iter().map(|(host, port)| (host.as_str(), *port)).collect();
        assert_eq!(hosts, [("h1", 5671), ("h2", 1), ("::1", 5671), ("::1", 2)]);
    }

    #[test]
    fn a_sink_goes_to_a_queue_or_an_exchange_and_a_source_needs_a_queue() {
        assert!(read("amqp://h", Side::Source).unwrap_err().contains("option 'queue' is missing"));
        assert!(read("amqp://h", Side::Sink).unwrap_err().contains("option 'queue' or 'exchange' is missing"));
        assert!(read("amqp://h?queue=q&exchange=x", Side::Sink).unwrap_err().contains("exclude each other"));
        let sink = read("amqp://h?queue=q", Side::Sink).unwrap();
        assert_eq!((sink.exchange.as_str(), sink.routing_key), ("", RoutingKey::Fixed("q".into())));
        let sink = read("amqp://h?exchange=x&routing-key-from=header:kind", Side::Sink).unwrap();
        assert_eq!(sink.routing_key, RoutingKey::Header("kind".into()));
    }

    #[test]
    fn settings_that_would_break_a_promise_or_mean_nothing_are_refused() {
        for (text, why) in [
            ("amqp://h?queue=q&prefetch=0", "no bound"),
            ("amqp://h?queue=q&ca=x", "need the scheme amqps"),
            ("amqps://h?queue=q&auth=external", "needs 'cert'"),
            ("amqps://h?queue=q&cert=a", "need each other"),
            ("amqp://h?queue=q&max-priority=5", "type=classic"),
            ("amqp://h?queue=q&start=first", "type=stream"),
            ("amqp://h?queue=q&qeue=q", "unknown option 'qeue': did you mean 'queue'?"),
            ("amqp:orders?queue=q", "needs a host"),
            ("amqp://h:port?queue=q", "is not host or host:port"),
        ] {
            let error = read(text, Side::Source).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
