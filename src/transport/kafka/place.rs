//! What a URL says: `kafka://h1:9092,h2:9092?topic=orders&group=ship`.

use super::settings;
use crate::error::Error;
use crate::transport::{KeyFrom, Options, Secret, Side, Url};
use std::path::PathBuf;

/// Where to connect and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cluster {
    /// `host:port` each; one that answers tells of all others.
    pub(super) hosts: Vec<String>,
    pub(super) login: Option<Login>,
    pub(super) tls: Option<Tls>,
}

/// How a client says who it is: SASL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) user: String,
    pub(super) password: Secret,
    /// As the option `sasl.mechanism` of the client library names it.
    pub(super) mechanism: &'static str,
}

/// Files that a URL of scheme `kafkas` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tls {
    /// Trusted instead of the system's roots.
    pub(super) ca: Option<PathBuf>,
    /// The client's certificate chain …
    pub(super) cert: Option<PathBuf>,
    /// … and its private key, both PEM.
    pub(super) key: Option<PathBuf>,
}

/// What is read, or written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Topics {
    /// These; at least one, and of a sink exactly one.
    Named(Vec<String>),
    /// Every topic whose name matches: it begins with `^`. For sources.
    Pattern(String),
}

/// How a group agrees on who reads what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Members decide among each other.
    #[default]
    Classic,
    /// The broker decides: KIP-848.
    Consumer,
}

/// Where a group that has no place in a partition starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    Earliest,
    Latest,
    Offset(i64),
    /// At the first record that is not older; milliseconds since 1970 UTC.
    Time(i64),
}

/// What a URL of this transport says.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) cluster: Cluster,
    /// As it is shown, without a secret.
    pub(super) shown: String,
    pub(super) topics: Topics,
    /// `None` where the URL names none: the default of whoever opens it.
    pub(super) group: Option<String>,
    /// A name that stays over restarts: the static member's id, and a part of the transactional one.
    pub(super) instance: Option<String>,
    pub(super) protocol: Protocol,
    /// `None` where the URL does not say, which means the earliest.
    pub(super) start: Option<Start>,
    /// Whether records of transactions that are open or aborted are read, too.
    pub(super) read_uncommitted: bool,
    pub(super) key: KeyFrom,
    /// Whether an absent topic is created.
    pub(super) declare: bool,
    /// Settings of the client library, known to exist there and to break no promise. They may hold secrets.
    pub(super) settings: Vec<(String, Secret)>,
}

impl Place {
    /// Reads a URL. Opens nothing.
    ///
    /// # Errors
    /// All that is wrong, by name, in one error.
    pub(super) fn read(url: &Url, side: Side) -> Result<Self, Error> {
        let options = url.options();
        let place = Self::from_options(url, &options, side);
        options.finish().map_err(|error| error.of(format_args!("'{url}'")))?;
        Ok(place)
    }

    fn from_options(url: &Url, options: &Options<'_>, side: Side) -> Self {
        if !url.path().is_empty() {
            options.wrong("a URL of Kafka has no path: the topic is option 'topic'".into());
        }
        let key = KeyFrom::parse(options.text("key")).unwrap_or_else(|error| {
            options.wrong(error.to_string());
            KeyFrom::Message
        });
        if key == KeyFrom::RoutingKey {
            options.wrong("option 'key=routing-key' has no meaning: Kafka has no routing keys".into());
        }
        let protocol = match options.one_of("protocol", &["classic", "consumer"]) {
            Some("consumer") => Protocol::Consumer,
            _ => Protocol::Classic,
        };
        let isolation = options.one_of("isolation", &["read_committed", "read_uncommitted"]);
        Self {
            cluster: cluster(url, options),
            shown: url.to_string(),
            topics: topics(options, side),
            group: named(options, "group"),
            instance: instance(options),
            protocol,
            start: options.text("start").and_then(|text| start(text, options)),
            read_uncommitted: isolation == Some("read_uncommitted"),
            key,
            declare: options.bool("declare").unwrap_or(true),
            settings: settings::read(options, protocol),
        }
    }

    /// The topic of a sink: exactly one, which reading has made sure of.
    pub(super) fn topic(&self) -> &str {
        match &self.topics {
            Topics::Named(topics) => topics.first().map_or("", String::as_str),
            Topics::Pattern(pattern) => pattern,
        }
    }
}

/// The text of an option that is not empty where it is given.
fn named(options: &Options<'_>, name: &'static str) -> Option<String> {
    let text = options.text(name)?;
    if text.is_empty() {
        options.wrong(format!("option '{name}' is empty"));
    }
    Some(text.to_owned())
}

fn instance(options: &Options<'_>) -> Option<String> {
    let instance = named(options, "instance")?;
    if !instance.is_empty() && !is_legal(&instance) {
        options.wrong(format!("option 'instance={instance}' is not made of letters, digits and '._-', 249 at most"));
    }
    Some(instance)
}

/// Whether the broker takes it for the name of a topic, or of an instance.
fn is_legal(name: &str) -> bool {
    let fits = (1..=249).contains(&name.len()) && name != "." && name != "..";
    fits && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn topics(options: &Options<'_>, side: Side) -> Topics {
    let text = options.required("topic");
    if text.starts_with('^') {
        if side == Side::Sink {
            options.wrong(format!("option 'topic={text}' is a pattern, and a sink writes to one topic"));
        }
        // A comma is a part of it.
        return Topics::Pattern(text.to_owned());
    }
    let mut topics: Vec<String> = Vec::new();
    for topic in text.split(',').filter(|_| !text.is_empty()) {
        if !is_legal(topic) {
            options.wrong(format!("topic '{topic}' is not made of letters, digits and '._-', 249 at most"));
        }
        if !topics.iter().any(|earlier| earlier == topic) {
            topics.push(topic.to_owned());
        }
    }
    if side == Side::Sink && topics.len() > 1 {
        options.wrong(format!("option 'topic={text}' names several, and a sink writes to one topic"));
    }
    Topics::Named(topics)
}

fn start(text: &str, options: &Options<'_>) -> Option<Start> {
    let start = match text {
        "earliest" => Some(Start::Earliest),
        "latest" => Some(Start::Latest),
        number if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) => {
            number.parse().ok().map(Start::Offset)
        }
        time => time.parse::<jiff::Timestamp>().ok().map(|time| Start::Time(time.as_millisecond())),
    };
    if start.is_none() {
        options.wrong(format!(
            "option 'start={text}' is none of earliest, latest, an offset, a time such as 2026-03-01T12:00:00Z"
        ));
    }
    start
}

/// Where to connect and as whom.
fn cluster(url: &Url, options: &Options<'_>) -> Cluster {
    let secure = url.scheme() == "kafkas";
    let default_port = if secure { 9093 } else { 9092 };
    let mut hosts = Vec::new();
    for host in url.hosts() {
        match with_port(host, default_port) {
            Some(host) => hosts.push(host),
            // Not shown: it may be a part of a password whose '/' or '@' was not escaped.
            None => options.wrong("a host is not host or host:port; escape '/', '?' and '@' in a password".into()),
        }
    }
    if url.hosts().is_empty() {
        options.wrong("a cluster needs a host, such as kafka://localhost:9092?topic=orders".into());
    }
    let path = |name| options.text(name).map(PathBuf::from);
    let (ca, cert, key) = (path("ca"), path("cert"), path("cert-key"));
    if !secure && (ca.is_some() || cert.is_some() || key.is_some()) {
        options.wrong("options 'ca', 'cert' and 'cert-key' need the scheme kafkas".into());
    }
    if cert.is_some() != key.is_some() {
        options.wrong("options 'cert' and 'cert-key' need each other".into());
    }
    Cluster { hosts, login: login(url, options), tls: secure.then_some(Tls { ca, cert, key }) }
}

fn login(url: &Url, options: &Options<'_>) -> Option<Login> {
    let auth = options.one_of("auth", &["plain", "scram-sha-256", "scram-sha-512"]);
    let mechanism = match auth {
        Some("scram-sha-256") => "SCRAM-SHA-256",
        Some("scram-sha-512") => "SCRAM-SHA-512",
        _ => "PLAIN",
    };
    match (url.user().filter(|user| !user.is_empty()), url.password()) {
        (Some(user), Some(password)) if !password.reveal().is_empty() => {
            Some(Login { user: user.to_owned(), password: password.clone(), mechanism })
        }
        (None, None) => {
            if let Some(auth) = auth {
                options.wrong(format!("option 'auth={auth}' needs user:password before the hosts"));
            }
            None
        }
        _ => {
            options.wrong("a login needs both user and password, such as user:${env:PASSWORD}@host".into());
            None
        }
    }
}

/// `host`, `host:port`, `[::1]`, `[::1]:port`, each with a port.
fn with_port(text: &str, default_port: u16) -> Option<String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            let port = match rest.strip_prefix(':') {
                Some(port) => Some(port),
                None if rest.is_empty() => None,
                None => return None,
            };
            (format!("[{host}]"), port)
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host.to_owned(), Some(port)),
            None => (text.to_owned(), None),
        },
    };
    let port = port.map_or(Ok(default_port), str::parse::<u16>).ok()?;
    // What the client library would take apart in its own way.
    let odd = |each: char| each.is_whitespace() || each.is_control() || ",/@".contains(each);
    (!host.is_empty() && !host.contains(odd)).then(|| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, side: Side) -> Result<Place, String> {
        Place::read(&Url::parse(text).unwrap(), side).map_err(|error| error.to_string())
    }

    fn source(text: &str) -> Place {
        read(text, Side::Source).unwrap()
    }

    #[test]
    fn ports_follow_the_scheme_and_hosts_may_be_several() {
        assert_eq!(source("kafka://h1,h2:1,[::1]:2?topic=t").cluster.hosts, ["h1:9092", "h2:1", "[::1]:2"]);
        let place = source("kafkas://h1,[::1]?topic=t");
        assert_eq!(place.cluster.hosts, ["h1:9093", "[::1]:9093"]);
        assert_eq!(place.cluster.tls, Some(Tls { ca: None, cert: None, key: None }));
        assert_eq!(source("kafka://h?topic=t").cluster.tls, None);
    }

    #[test]
    fn a_source_reads_one_topic_or_several_or_those_of_a_pattern_and_a_sink_writes_to_one() {
        let named = |topics: &[&str]| Topics::Named(topics.iter().map(|&topic| topic.to_owned()).collect());
        assert_eq!(source("kafka://h?topic=a").topics, named(&["a"]));
        assert_eq!(source("kafka://h?topic=a,b_1,a,c.d-e").topics, named(&["a", "b_1", "c.d-e"]));
        assert_eq!(source("kafka://h?topic=^a{1,2}$").topics, Topics::Pattern("^a{1,2}$".to_owned()));
        assert_eq!(read("kafka://h?topic=a", Side::Sink).unwrap().topic(), "a");
        for (topic, why) in [("a,b", "names several"), ("^a", "is a pattern")] {
            let error = read(&format!("kafka://h?topic={topic}"), Side::Sink).unwrap_err();
            assert!(error.contains(why) && error.contains("one topic"), "{error}");
        }
        for topic in ["", "a b", "a,", "a,^b", "..", &"x".repeat(250), "ä", "a/b"] {
            let error = read(&format!("kafka://h?topic={topic}"), Side::Source).unwrap_err();
            assert!(error.contains("topic"), "{topic}: {error}");
        }
        assert!(read("kafka://h", Side::Sink).unwrap_err().contains("option 'topic' is missing"));
    }

    #[test]
    fn what_a_url_does_not_say_has_a_default() {
        let place = source("kafka://h?topic=t");
        assert_eq!((place.group, place.instance, place.protocol), (None, None, Protocol::Classic));
        assert_eq!((place.start, place.read_uncommitted, place.declare), (None, false, true));
        assert_eq!((place.key, place.cluster.login), (KeyFrom::Message, None));
        assert!(place.settings.is_empty());
    }

    #[test]
    fn every_option_is_read() {
        let place = source(
            "kafka://h?topic=t&group=g&instance=i-1&protocol=consumer&isolation=read_uncommitted&key=/a&declare=false\
             &linger.ms=7",
        );
        assert_eq!((place.group.as_deref(), place.instance.as_deref()), (Some("g"), Some("i-1")));
        assert_eq!((place.protocol, place.read_uncommitted, place.declare), (Protocol::Consumer, true, false));
        assert_eq!(place.key, KeyFrom::Pointer("/a".to_owned()));
        let settings: Vec<_> = place.settings.iter().map(|(name, value)| (name.as_str(), value.reveal())).collect();
        assert_eq!(settings, [("linger.ms", "7")]);
        let tls = source("kafkas://h?topic=t&ca=ca.pem&cert=c.pem&cert-key=c.key").cluster.tls.unwrap();
        let path = |name: &str| Some(PathBuf::from(name));
        assert_eq!(tls, Tls { ca: path("ca.pem"), cert: path("c.pem"), key: path("c.key") });
    }

    #[test]
    fn a_start_is_a_word_an_offset_or_a_time() {
        for (text, start) in [
            ("earliest", Start::Earliest),
            ("latest", Start::Latest),
            ("0", Start::Offset(0)),
            ("123456789012", Start::Offset(123_456_789_012)),
            ("1970-01-01T00:00:01.5Z", Start::Time(1_500)),
            ("1970-01-01T01:00:00%2B01:00", Start::Time(0)),
        ] {
            assert_eq!(source(&format!("kafka://h?topic=t&start={text}")).start, Some(start), "{text}");
        }
        for text in ["", "-1", "now", "2026-03-01", "99999999999999999999"] {
            let error = read(&format!("kafka://h?topic=t&start={text}"), Side::Source).unwrap_err();
            assert!(error.contains(&format!("'start={text}' is none of")), "{error}");
        }
    }

    #[test]
    fn user_and_password_are_a_login_and_auth_says_which_way() {
        for (auth, mechanism) in [
            ("", "PLAIN"),
            ("&auth=plain", "PLAIN"),
            ("&auth=scram-sha-256", "SCRAM-SHA-256"),
            ("&auth=scram-sha-512", "SCRAM-SHA-512"),
        ] {
            let login = source(&format!("kafkas://me:p%40ss@h?topic=t{auth}")).cluster.login.unwrap();
            assert_eq!((login.user.as_str(), login.password.reveal(), login.mechanism), ("me", "p@ss", mechanism));
        }
    }

    #[test]
    fn a_place_shows_no_secret() {
        let place = source("kafkas://me:canary@h?topic=t&cert=a&cert-key=b&ssl.key.password=canary");
        let shown = format!("{place:?} {}", place.shown);
        assert!(!shown.contains("canary"), "{shown}");
        assert_eq!(place.settings[0].1.reveal(), "canary");
    }

    #[test]
    fn settings_that_would_break_a_promise_or_mean_nothing_are_refused() {
        for (text, why) in [
            ("kafka://h?topic=t&ca=x", "need the scheme kafkas"),
            ("kafka://h?topic=t&cert=x&cert-key=x", "need the scheme kafkas"),
            ("kafkas://h?topic=t&cert=x", "need each other"),
            ("kafkas://h?topic=t&cert-key=x", "need each other"),
            ("kafka://h?topic=t&auth=plain", "needs user:password"),
            ("kafka://h?topic=t&auth=gssapi", "none of plain, scram-sha-256, scram-sha-512"),
            ("kafka://me@h?topic=t", "both user and password"),
            ("kafka://me:@h?topic=t", "both user and password"),
            ("kafka://:secret@h?topic=t", "both user and password"),
            ("kafka://h/orders?topic=t", "has no path"),
            ("kafka:orders?topic=t", "needs a host"),
            ("kafka://h:port?topic=t", "is not host or host:port"),
            ("kafka://h:70000?topic=t", "is not host or host:port"),
            ("kafka://[::1?topic=t", "is not host or host:port"),
            ("kafka://h?topic=t&group=", "option 'group' is empty"),
            ("kafka://h?topic=t&instance=", "option 'instance' is empty"),
            ("kafka://h?topic=t&instance=a/b", "option 'instance=a/b'"),
            ("kafka://h?topic=t&protocol=eager", "none of classic, consumer"),
            ("kafka://h?topic=t&isolation=committed", "none of read_committed, read_uncommitted"),
            ("kafka://h?topic=t&declare=yes", "is not true or false"),
            ("kafka://h?topic=t&key=routing-key", "Kafka has no routing keys"),
            ("kafka://h?topic=t&key=x", "option 'key=x'"),
            ("kafka://h?tpoic=t&topic=t", "unknown option 'tpoic': did you mean 'topic'?"),
            ("kafka://h?topic=t&queue=t", "unknown option 'queue'"),
        ] {
            for side in [Side::Source, Side::Sink] {
                let error = read(text, side).unwrap_err();
                assert!(error.contains(why), "{text}: {error}");
            }
        }
    }
}
