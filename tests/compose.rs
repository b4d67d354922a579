//! What users get beside the code: the services of `docker-compose.yml`, and the dashboard. Docker is not needed: files
//! are read as Compose, Prometheus and Grafana read them, and what they name must be there.

use longshore::transport::Url;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;
use yaml_rust2::{Yaml, YamlLoader};

const DASHBOARD: &str = "examples/observability/grafana/dashboards/longshore.json";
const DATASOURCES: &str = "examples/observability/grafana/provisioning/datasources/prometheus.yml";
const DASHBOARDS: &str = "examples/observability/grafana/provisioning/dashboards/longshore.yml";
const PROMETHEUS: &str = "examples/observability/prometheus.yml";

/// How long an app takes to stop unless it is told otherwise, and what it needs on top of it.
const DEADLINE: Duration = Duration::from_secs(25);
const RESERVE: Duration = Duration::from_secs(2);

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A file of one document, in which no key stands twice.
fn yaml(path: &str) -> Yaml {
    let mut all = YamlLoader::load_from_str(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert_eq!(all.len(), 1, "{path}");
    all.remove(0)
}

fn entries(yaml: &Yaml) -> Vec<(&str, &Yaml)> {
    let Some(hash) = yaml.as_hash() else { return Vec::new() };
    hash.iter().map(|(key, value)| (key.as_str().unwrap(), value)).collect()
}

fn strings(yaml: &Yaml) -> Vec<&str> {
    yaml.as_vec().map(|all| all.iter().map(|each| each.as_str().unwrap()).collect()).unwrap_or_default()
}

fn services(compose: &Yaml) -> Vec<(&str, &Yaml)> {
    let services = entries(&compose["services"]);
    assert_eq!(services.len(), 5);
    services
}

fn seconds(text: &str) -> Duration {
    Duration::from_secs(text.strip_suffix('s').unwrap().parse().unwrap())
}

#[test]
fn the_broker_comes_alone_and_the_rest_by_its_profile() {
    let compose = yaml("docker-compose.yml");
    let profiles: Vec<_> =
        services(&compose).into_iter().map(|(name, service)| (name, strings(&service["profiles"]))).collect();
    assert_eq!(
        profiles,
        [
            ("rabbitmq", vec![]),
            ("kafka", vec!["kafka"]),
            ("worker", vec!["worker"]),
            ("prometheus", vec!["metrics"]),
            ("grafana", vec!["metrics"])
        ]
    );
}

#[test]
fn a_worker_is_given_longer_than_its_deadline_before_it_is_killed() {
    let compose = yaml("docker-compose.yml");
    let grace = compose["services"]["worker"]["stop_grace_period"].as_str().unwrap();
    assert_eq!(grace, "30s");
    assert!(seconds(grace) > DEADLINE + RESERVE);
}

#[test]
fn no_service_is_reached_from_another_machine() {
    for (name, service) in services(&yaml("docker-compose.yml")) {
        for port in strings(&service["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{name} publishes {port}");
        }
    }
}

#[test]
fn a_client_of_kafka_on_this_machine_is_sent_where_the_port_is_published_and_a_service_to_its_name() {
    let compose = yaml("docker-compose.yml");
    let kafka = &compose["services"]["kafka"];
    let setting = |name: &str| kafka["environment"][name].as_str().unwrap_or_else(|| panic!("{name}"));
    /// `NAME://host:port` each: name, host, port.
    fn places(listeners: &str) -> BTreeMap<&str, (&str, &str)> {
        let each = listeners.split(',').map(|listener| listener.split_once("://").unwrap());
        each.map(|(name, place)| (name, place.rsplit_once(':').unwrap())).collect()
    }
    let (listeners, advertised) = (places(setting("KAFKA_LISTENERS")), places(setting("KAFKA_ADVERTISED_LISTENERS")));
    for (name, (_, port)) in &advertised {
        assert_eq!(listeners[name].1, *port, "{name}");
    }
    let (host, port) = advertised["OUTSIDE"];
    assert_eq!(strings(&kafka["ports"]), [format!("{host}:{port}:{port}")]);
    assert_eq!(Some(advertised["INSIDE"].0), kafka["hostname"].as_str());
    let controller = format!("1@kafka:{}", listeners["CONTROLLER"].1);
    assert_eq!(setting("KAFKA_CONTROLLER_QUORUM_VOTERS"), controller);
    let protocols = setting("KAFKA_LISTENER_SECURITY_PROTOCOL_MAP");
    for name in listeners.keys() {
        assert!(protocols.split(',').any(|each| each == format!("{name}:PLAINTEXT")), "{name}");
    }
    // One node, and nothing waits for a second.
    for (name, value) in entries(&kafka["environment"]) {
        if name.ends_with("_REPLICATION_FACTOR") || name.ends_with("_MIN_ISR") {
            assert_eq!(value.as_str(), Some("1"), "{name}");
        }
    }
    let image = kafka["image"].as_str().unwrap();
    let script = text("scripts/broker.d/kafka.sh");
    let version = script.lines().find_map(|line| line.strip_prefix("readonly KAFKA_VERSION=")).unwrap();
    assert_eq!(image, format!("apache/kafka:{version}"), "what is tested is what users are given");
}

#[test]
fn what_a_service_mounts_builds_and_waits_for_is_there() {
    let compose = yaml("docker-compose.yml");
    let volumes: Vec<&str> = entries(&compose["volumes"]).into_iter().map(|(name, _)| name).collect();
    let names: Vec<&str> = services(&compose).into_iter().map(|(name, _)| name).collect();
    for (name, service) in services(&compose) {
        for mount in strings(&service["volumes"]) {
            let from = mount.split(':').next().unwrap();
            let there = if from.starts_with('.') { root().join(from).exists() } else { volumes.contains(&from) };
            assert!(there, "{name} mounts {from}");
        }
        if let Some(context) = service["build"].as_str() {
            assert!(root().join(context).join("Dockerfile").exists(), "{name}");
        }
        let waits_for = &service["depends_on"];
        for other in strings(waits_for).into_iter().chain(entries(waits_for).into_iter().map(|(name, _)| name)) {
            assert!(names.contains(&other), "{name} waits for {other}");
        }
        for (other, how) in entries(waits_for) {
            assert_eq!(how["condition"].as_str(), Some("service_healthy"), "{name}");
            assert!(!compose["services"][other]["healthcheck"].is_badvalue(), "{other} never gets healthy");
        }
    }
}

#[test]
fn the_example_worker_is_called_as_the_command_is() {
    let compose = yaml("docker-compose.yml");
    let worker = &compose["services"]["worker"];
    let command = strings(&worker["command"]);
    let ["bridge", source, sink, "--admin-listen", listen] = command[..] else { panic!("{command:?}") };
    for url in [source, sink] {
        // As Compose hands it on; the variable is one of the service, and shown nowhere.
        let url = url.replace("$$", "$");
        let variable = url.split_once("${env:").unwrap().1.split('}').next().unwrap();
        let value = worker["environment"][variable].as_str().unwrap();
        let here = url.replace(variable, "PATH"); // a variable that this process has too
        let parsed = Url::parse(&here).unwrap();
        assert_eq!(parsed.scheme(), "amqp");
        assert!(!parsed.has_literal_password() && !url.contains(&format!(":{value}@")), "{url}");
        assert_eq!(parsed.hosts(), ["rabbitmq"]);
    }
    let port = listen.strip_prefix("0.0.0.0:").unwrap();
    let scraped = &yaml(PROMETHEUS)["scrape_configs"][0]["dns_sd_configs"][0];
    assert_eq!(scraped["names"][0].as_str(), Some("worker"));
    assert_eq!(scraped["port"].as_i64().unwrap().to_string(), port);
}

#[test]
fn prometheus_and_grafana_ask_services_that_there_are() {
    let compose = yaml("docker-compose.yml");
    let names: Vec<&str> = services(&compose).into_iter().map(|(name, _)| name).collect();
    for job in yaml(PROMETHEUS)["scrape_configs"].as_vec().unwrap() {
        for group in job["static_configs"].as_vec().into_iter().flatten() {
            for target in strings(&group["targets"]) {
                assert!(names.contains(&target.split(':').next().unwrap()), "{target}");
            }
        }
    }
    let source = &yaml(DATASOURCES)["datasources"][0];
    let published = strings(&compose["services"]["prometheus"]["ports"])[0].rsplit(':').next().unwrap().to_owned();
    assert_eq!(source["url"].as_str(), Some(format!("http://prometheus:{published}").as_str()));
    let folder = yaml(DASHBOARDS)["providers"][0]["options"]["path"].as_str().unwrap().to_owned();
    let mounts = strings(&compose["services"]["grafana"]["volumes"]);
    let mounted = mounts.iter().find(|mount| mount.contains(&format!(":{folder}:"))).expect("the folder is mounted");
    assert!(root().join(mounted.split(':').next().unwrap()).join("longshore.json").exists());
    let home = compose["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].as_str();
    assert_eq!(home, Some(format!("{folder}/longshore.json").as_str()));
}

/// Every text under a key, wherever it stands.
fn all<'a>(value: &'a Value, key: &str, into: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                match value {
                    Value::String(text) if name == key => into.push(text),
                    _ => all(value, key, into),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| all(value, key, into)),
        _ => {}
    }
}

/// Words of a text that start so.
fn words<'a>(text: &'a str, start: &str) -> BTreeSet<&'a str> {
    let words = text.split(|each: char| !each.is_ascii_alphanumeric() && each != '_');
    words.filter(|word| word.starts_with(start) && word.len() > start.len()).collect()
}

/// A metric's name without what a histogram adds to it.
fn family(name: &str) -> &str {
    ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
}

#[test]
fn the_dashboard_shows_metrics_that_there_are_and_all_of_them() {
    let dashboard: Value = serde_json::from_str(&text(DASHBOARD)).unwrap();
    let mut asked = Vec::new();
    all(&dashboard, "expr", &mut asked);
    all(&dashboard["templating"], "query", &mut asked);
    assert!(asked.len() > 30, "{}", asked.len());
    let asked = asked.join("\n");
    let shown: BTreeSet<&str> = words(&asked, "longshore_").into_iter().map(family).collect();
    let source = text("src/telemetry/metrics.rs");
    let described = source.split("fn describe() {").nth(1).unwrap().split("\n}\n").next().unwrap();
    let mut known = words(described, "longshore_");
    known.insert("longshore_handler_seconds"); // described by its constant
    assert_eq!(shown, known);
}

#[test]
fn every_panel_of_the_dashboard_has_a_place_and_the_datasource_that_is_provided() {
    let dashboard: Value = serde_json::from_str(&text(DASHBOARD)).unwrap();
    let uid = yaml(DATASOURCES)["datasources"][0]["uid"].as_str().unwrap().to_owned();
    let panels = dashboard["panels"].as_array().unwrap();
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
        assert!(x + w <= 24, "{title}");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{title} lies over another");
        }
        if panel["type"] != "row" {
            assert_eq!(panel["datasource"]["uid"], uid.as_str(), "{title}");
            assert!(!panel["targets"].as_array().unwrap().is_empty(), "{title}");
        }
    }
}

#[test]
fn the_image_has_what_the_workspace_needs_to_be_built() {
    let ignored = text(".dockerignore");
    for needed in ["Cargo.toml", "Cargo.lock", "src", "workers", "tests", "benches", "examples"] {
        assert!(Path::new(&root()).join(needed).exists(), "{needed}");
        assert!(!ignored.lines().any(|line| line == needed), "{needed}");
    }
}
