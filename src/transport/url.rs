//! The URL of a source or sink.
//!
//! `scheme:path?option=value`, or `scheme://user:password@host,host/path?…` where there are hosts. `${env:X}` and
//! `${file:P}` are put in after the URL is taken apart, so that a secret may hold any character. What is printed is
//! the text as it was written, with a literal password left out.

use super::Options;
use crate::error::Error;
use percent_encoding::percent_decode_str;
use std::fmt;

/// A value that no log, error or `Debug` shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A secret.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value, for the one call that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A source or sink by name.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    user: Option<String>,
    password: Option<Secret>,
    password_is_literal: bool,
    hosts: Vec<String>,
    path: String,
    options: Vec<(String, String)>,
    shown: String,
}

impl Url {
    /// Takes a URL apart and puts in `${env:X}` and `${file:P}`.
    ///
    /// # Errors
    /// No scheme, an unset variable, an unreadable file, a `%` escape that is no UTF-8.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let (scheme, rest) = text
            .split_once(':')
            .filter(|(scheme, _)| {
                scheme.starts_with(|first: char| first.is_ascii_alphabetic())
                    && scheme.chars().all(|each| each.is_ascii_alphanumeric() || "+-.".contains(each))
            })
            .ok_or_else(|| {
                Error::configuration(format!("'{}' is no URL such as local:orders.db?queue=orders", redact(text)))
            })?;
        let (place, query) = split_outside_references(rest, '?').unwrap_or((rest, ""));
        let mut url = Self {
            scheme: scheme.to_ascii_lowercase(),
            user: None,
            password: None,
            password_is_literal: false,
            hosts: Vec::new(),
            path: String::new(),
            options: Vec::new(),
            shown: redact(text),
        };
        let name = |error: Error| error.of(format_args!("'{}'", redact(text)));
        match place.strip_prefix("//") {
            // `local:///abs/path` and `file:///abs/path` have no host.
            Some(rooted) if rooted.starts_with('/') => url.path = value(rooted).map_err(name)?,
            Some(authority) => {
                let (authority, path) = split_outside_references(authority, '/').unwrap_or((authority, ""));
                url.path = value(path).map_err(name)?;
                let (login, hosts) = match authority.rsplit_once('@') {
                    Some((login, hosts)) => (Some(login), hosts),
                    None => (None, authority),
                };
                if let Some(login) = login {
                    let (user, password) = match login.split_once(':') {
                        // `${env:USER}` alone holds a colon too.
                        Some((user, password)) if !user.ends_with("${env") && !user.ends_with("${file") => {
                            (user, Some(password))
                        }
                        _ => match split_after_reference(login) {
                            Some((user, password)) => (user, Some(password)),
                            None => (login, None),
                        },
                    };
                    url.user = Some(value(user).map_err(name)?);
                    if let Some(password) = password {
                        url.password_is_literal = !password.contains("${");
                        url.password = Some(Secret::new(value(password).map_err(name)?));
                    }
                }
                for host in hosts.split(',').filter(|host| !host.is_empty()) {
                    url.hosts.push(value(host).map_err(name)?);
                }
            }
            None => url.path = value(place).map_err(name)?,
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, raw) = pair.split_once('=').unwrap_or((pair, ""));
            url.options.push((decoded(key).map_err(name)?, value(raw).map_err(name)?));
        }
        Ok(url)
    }

    /// The scheme, in lower case.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The user, where one is given.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The password, where one is given.
    pub fn password(&self) -> Option<&Secret> {
        self.password.as_ref()
    }

    /// Whether the password stands in the URL itself, where a list of processes shows it.
    pub fn has_literal_password(&self) -> bool {
        self.password_is_literal
    }

    /// `host` or `host:port`, as written.
    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// What stands before the options: a file, a queue's name, a vhost without its first `/`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The options, to be asked for by name; what nobody asked for is an error.
    pub fn options(&self) -> Options<'_> {
        Options::new(&self.options)
    }

    /// The value of an option, for a look at it before a transport reads all.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().rev().find(|(at, _)| at == name).map(|(_, value)| value.as_str())
    }

    /// The same URL without these options.
    #[must_use]
    pub fn without(&self, names: &[&str]) -> Self {
        let goes = |pair: &str| {
            let name = pair.split_once('=').map_or(pair, |(name, _)| name);
            decoded(name).is_ok_and(|name| names.contains(&name.as_str()))
        };
        let shown = match split_outside_references(&self.shown, '?') {
            None => self.shown.clone(),
            Some((place, query)) => {
                let kept: Vec<&str> = query.split('&').filter(|pair| !goes(pair)).collect();
                if kept.is_empty() { place.to_owned() } else { format!("{place}?{}", kept.join("&")) }
            }
        };
        let mut options = self.options.clone();
        options.retain(|(name, _)| !names.contains(&name.as_str()));
        Self { options, shown, ..self.clone() }
    }

    /// The same URL with these options alone, and this path.
    #[must_use]
    pub fn with(&self, path: impl Into<String>, options: &[(&str, &str)]) -> Self {
        let path = path.into();
        let shown: Vec<String> =
            options.iter().map(|(name, value)| format!("{name}={}", redact_option(name, value))).collect();
        let authority = self
            .shown
            .split_once("//")
            .filter(|_| !self.hosts.is_empty())
            .map(|(_, rest)| split_outside_references(rest, '/').map_or(rest, |(authority, _)| authority))
            .map(|rest| split_outside_references(rest, '?').map_or(rest, |(authority, _)| authority).to_owned());
        Self {
            shown: match authority {
                Some(authority) => {
                    // What stands before an `@` may be the rest of a password whose '/' was not escaped.
                    let path = path.rfind('@').map_or(path.clone(), |end| format!("***{}", &path[end..]));
                    format!("{}://{authority}/{path}?{}", self.scheme, shown.join("&"))
                }
                None if shown.is_empty() => format!("{}:{path}", self.scheme),
                None => format!("{}:{path}?{}", self.scheme, shown.join("&")),
            },
            path,
            options: options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            ..self.clone()
        }
    }
}

impl std::str::FromStr for Url {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Url({self})")
    }
}

/// Splits at the first such character that is no part of a `${file:/run/secrets/password}`.
fn split_outside_references(text: &str, at: char) -> Option<(&str, &str)> {
    let mut inside = false;
    let mut before = ' ';
    for (index, each) in text.char_indices() {
        match each {
            '{' if before == '$' => inside = true,
            '}' => inside = false,
            _ if each == at && !inside => return Some((&text[..index], &text[index + at.len_utf8()..])),
            _ => {}
        }
        before = each;
    }
    None
}

/// Splits `${env:USER}:password`, in which the first colon belongs to the reference.
fn split_after_reference(login: &str) -> Option<(&str, &str)> {
    let end = login.find('}')? + 1;
    login[end..].strip_prefix(':').map(|password| (&login[..end], password))
}

/// Schemes whose URLs have no login.
const PATHS: [&str; 3] = ["memory", "local", "file"];

/// The text without a literal password, its own or one of a URL among its options.
fn redact(text: &str) -> String {
    let shown = redact_login(text);
    let Some((place, query)) = split_outside_references(&shown, '?') else { return shown };
    let pairs: Vec<String> = query
        .split('&')
        .map(|pair| match pair.split_once('=') {
            Some((name, value)) => format!("{name}={}", redact_option(name, value)),
            None => pair.to_owned(),
        })
        .collect();
    format!("{place}?{}", pairs.join("&"))
}

/// Parts of the names of options whose values are secrets: settings of client libraries, such as `ssl.key.password`, also
/// where they are misspelt.
const SECRETS: [&str; 3] = ["pas", "secret", ".pem"];

/// The value of an option, which may be a secret by its name, or a URL with a login of its own, escaped or not.
fn redact_option(name: &str, value: &str) -> String {
    let name = decoded(name).unwrap_or_else(|_| name.to_owned());
    if SECRETS.iter().any(|part| name.contains(part)) && !value.starts_with("${") {
        return "***".to_owned();
    }
    let plain = decoded(value).unwrap_or_else(|_| value.to_owned());
    let shown = if plain.contains("//") { redact_login(&plain) } else { plain.clone() };
    if shown == plain { value.to_owned() } else { shown }
}

fn redact_login(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("//") else { return redact_mistaken(text) };
    let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
    let place_end = rest.find('?').unwrap_or(rest.len());
    // A password may hold the `/` or `?` that it should have escaped; hide up to the last `@`. An `@` among the options
    // of a URL without anything like a login is not the end of one.
    let unescaped = || match rest[..authority_end].contains(':') {
        true => rest.rfind('@'),
        false => rest[..place_end].rfind('@'),
    };
    let Some(login_end) = rest[..authority_end].rfind('@').or_else(unescaped) else { return text.to_owned() };
    let login = &rest[..login_end];
    let user = match login.find("${").filter(|start| *start == 0) {
        Some(_) => split_after_reference(login).map_or(login, |(user, _)| user),
        None => login.split(':').next().unwrap_or_default(),
    };
    let password = &login[user.len()..];
    if password.is_empty() || password.starts_with(":${") {
        return text.to_owned();
    }
    format!("{scheme}//{user}:***{}", &rest[login_end..])
}

/// The same where the `//` is missing: `amqp:/user:password@host`, `user:password@host`.
fn redact_mistaken(text: &str) -> String {
    let place_end = text.find('?').unwrap_or(text.len());
    let Some(login_end) = text[..place_end].rfind('@') else { return text.to_owned() };
    let Some((scheme, rest)) = text[..login_end].split_once(':') else { return text.to_owned() };
    match rest.split_once(':') {
        Some((user, _)) => format!("{scheme}:{user}:***{}", &text[login_end..]),
        // The name of a file or of a queue may hold an `@`.
        None if PATHS.contains(&scheme) => text.to_owned(),
        None => format!("{scheme}:***{}", &text[login_end..]),
    }
}

fn decoded(raw: &str) -> Result<String, Error> {
    percent_decode_str(raw)
        .decode_utf8()
        .map(|text| text.into_owned())
        .map_err(|_| Error::configuration("a '%' escape is no UTF-8"))
}

/// Decodes `%` escapes, then puts in what `${env:X}` and `${file:P}` stand for, as it is.
fn value(raw: &str) -> Result<String, Error> {
    let mut out = String::new();
    let mut rest = raw;
    while let Some(start) = rest.find("${") {
        out.push_str(&decoded(&rest[..start])?);
        let inside = &rest[start + 2..];
        let end = inside.find('}').ok_or_else(|| Error::configuration("'${' without its '}'"))?;
        out.push_str(&reference(&inside[..end])?);
        rest = &inside[end + 1..];
    }
    out.push_str(&decoded(rest)?);
    Ok(out)
}

fn reference(inside: &str) -> Result<String, Error> {
    match inside.split_once(':') {
        Some(("env", name)) => {
            std::env::var(name).map_err(|_| Error::configuration(format!("environment variable '{name}' is not set")))
        }
        Some(("file", path)) => std::fs::read_to_string(path)
            .map(|text| text.trim_end_matches(['\n', '\r']).to_owned())
            .map_err(|error| Error::configuration(format!("file '{path}' cannot be read")).caused_by(error)),
        _ => Err(Error::configuration(format!("'${{{inside}}}' is neither ${{env:NAME}} nor ${{file:PATH}}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn a_path_may_be_relative_absolute_or_a_name() {
        for (text, path) in [
            ("memory:orders", "orders"),
            ("local:orders.db?queue=a", "orders.db"),
            ("local:/var/orders.db?queue=a", "/var/orders.db"),
            ("file:///var/in.ndjson", "/var/in.ndjson"),
            ("file:-", "-"),
            ("file:a%20b.ndjson", "a b.ndjson"),
        ] {
            assert_eq!(url(text).path(), path, "{text}");
        }
    }

    #[test]
    fn hosts_user_and_vhost_are_told_apart() {
        let url = url("amqp://shop:p%40ss@h1:5672,h2/orders?queue=a&key=/customer");
        assert_eq!((url.user(), url.password().unwrap().reveal()), (Some("shop"), "p@ss"));
        assert_eq!((url.hosts(), url.path()), (["h1:5672".to_owned(), "h2".to_owned()].as_slice(), "orders"));
        assert_eq!(url.option("key"), Some("/customer"));
    }

    #[test]
    fn a_password_is_never_shown() {
        for text in
            ["amqp://u:canary@h/v", "amqp://u:can/ary@h/v?x=1", "amqp://u:can:ary@h", "amqp:canary@x//u:canary@h"]
        {
            let shown = format!("{:?}", Url::parse(text).map_err(|error| error.to_string()));
            let canary = ["canary", "can/ary", "can:ary"];
            if text.starts_with("amqp://") {
                assert!(canary.iter().all(|secret| !shown.contains(secret)), "{shown}");
            }
        }
    }

    #[test]
    fn a_password_is_hidden_where_the_slashes_were_forgotten() {
        for text in ["amqp:/u:canary@h/v", "amqp:u:canary@h", "u:canary@h/v", "u:can:ary@h?x=1"] {
            let shown = url(text).to_string();
            assert!(!shown.contains("canary") && !shown.contains("can:ary"), "{shown}");
        }
        assert_eq!(url("local:a@b.db?queue=q").to_string(), "local:a@b.db?queue=q");
    }

    #[test]
    fn a_password_of_a_url_among_the_options_is_never_shown() {
        for value in ["http://u:canary@h:1", "http%3A%2F%2Fu%3Acanary%40h", "http://u:c%61nary@h"] {
            for login in ["", "me@", "me:secret@"] {
                let url = url(&format!("amqp://{login}h?queue=q&management={value}&key=/k"));
                let there = url.option("management").unwrap().to_owned();
                assert!(there.contains("canary"), "{there}");
                let shown = format!("{url} {}", url.with("v", &[("queue", "d"), ("management", &there)]));
                assert!(!shown.contains("canary") && !shown.contains("c%61nary"), "{shown}");
                assert!(!shown.contains("secret"), "{shown}");
            }
        }
        let plain = "amqp://h?queue=q&management=http://h:1&exchange=a@b";
        assert_eq!(url(plain).to_string(), plain);
    }

    #[test]
    fn an_option_that_is_a_secret_by_its_name_is_never_shown() {
        for name in [
            "ssl.key.password",
            "ssl.key.pasword",
            "ssl%2Ekey%2Epassword",
            "sasl.oauthbearer.client.secret",
            "ssl.key.pem",
        ] {
            let url = url(&format!("kafkas://h?topic=t&{name}=canary&key=/k"));
            let known = decoded(name).unwrap();
            assert_eq!(url.option(&known), Some("canary"));
            let shown = format!("{url:?} {}", url.with("", &[(&known, "canary")]));
            assert!(!shown.contains("canary") && shown.contains("***"), "{shown}");
        }
        assert_eq!(
            url("kafkas://h?ssl.key.password=${env:HOME}").to_string(),
            "kafkas://h?ssl.key.password=${env:HOME}"
        );
    }

    #[test]
    fn secrets_from_the_environment_are_put_in_and_shown_by_name() {
        let home = std::env::var("PATH").unwrap();
        let url = url("amqp://${env:PATH}:${env:PATH}@h/?queue=${env:PATH}");
        assert_eq!((url.user().unwrap(), url.password().unwrap().reveal()), (home.as_str(), home.as_str()));
        assert_eq!(url.option("queue"), Some(home.as_str()));
        assert_eq!(url.to_string(), "amqp://${env:PATH}:${env:PATH}@h/?queue=${env:PATH}");
        assert!(!url.has_literal_password());
    }

    #[test]
    fn options_can_be_left_out_and_the_rest_is_shown_as_it_was_written() {
        let all = url("local:a.db?queue=${env:PATH}&group=g&key=/id");
        let some = all.without(&["group", "key"]);
        assert_eq!(some.to_string(), "local:a.db?queue=${env:PATH}");
        assert_eq!((some.option("group"), some.option("queue")), (None, all.option("queue")));
        assert_eq!(url("file:a?key=/id").without(&["key"]), url("file:a"));
    }

    #[test]
    fn a_secret_from_a_file_by_its_whole_path_stands_before_the_host() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pass?word");
        std::fs::write(&file, "a/b?c@d\n").unwrap();
        let text = format!("amqp://u:${{file:{}}}@h/v?queue=q", file.display());
        let url = url(&text);
        assert_eq!((url.password().unwrap().reveal(), url.path(), url.option("queue")), ("a/b?c@d", "v", Some("q")));
        assert_eq!((url.hosts(), url.to_string()), (["h".to_owned()].as_slice(), text));
        let dead = format!("amqp://u:${{file:{}}}@h/v?queue=dead", file.display());
        assert_eq!(url.with("v", &[("queue", "dead")]).to_string(), dead);
    }

    #[test]
    fn an_unset_variable_is_named() {
        let error = Url::parse("local:${env:LONGSHORE_NOT_SET}").unwrap_err().to_string();
        assert!(error.contains("LONGSHORE_NOT_SET"), "{error}");
    }
}
