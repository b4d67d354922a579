//! `FILE` of `produce` and `--output` of `consume`: a path, or a `file:` URL.

use longshore::transport::Url;

/// Schemes that a person means as a URL and not as the beginning of a file's name.
const OTHER_SCHEMES: [&str; 8] = ["memory", "local", "amqp", "amqps", "kafka", "kafkas", "redis", "http"];

/// Reads the argument: the URL that it stands for.
pub fn file_url(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("a file needs a name; - is standard input or output".to_owned());
    }
    match text.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase()) {
        Some(scheme) if scheme == "file" => Ok(text.to_owned()),
        Some(scheme) if OTHER_SCHEMES.contains(&scheme.as_str()) => Err(format!(
            "it takes a path or a file: URL, and {scheme}: is neither; 'longshore bridge SOURCE SINK' takes any two"
        )),
        _ => Ok(of_path(text)),
    }
}

/// The URL of a path as it is.
fn of_path(path: &str) -> String {
    let mut url = String::from(if path.starts_with('/') { "file://" } else { "file:" });
    for each in path.chars() {
        match each {
            '%' => url.push_str("%25"),
            '?' => url.push_str("%3F"),
            '$' => url.push_str("%24"),
            // A URL is trimmed.
            ' ' => url.push_str("%20"),
            other => url.push(other),
        }
    }
    url
}

/// A place for dead letters: a file holds whole messages unless it is told otherwise, since what is no JSON could not be
/// a line of it.
pub fn dead_letter_url(text: &str) -> String {
    match Url::parse(text) {
        Ok(url) if url.scheme() == "file" && url.option("format").is_none() => {
            let joint = if text.contains('?') { '&' } else { '?' };
            format!("{text}{joint}format=record")
        }
        // What is wrong with it is told by whoever opens it.
        _ => text.to_owned(),
    }
}

/// Whether a URL is standard input or output.
pub fn is_standard(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| url.scheme() == "file" && url.path() == "-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_file_url_stays_as_it_is_and_other_urls_are_refused() {
        assert_eq!(file_url("file:a.ndjson?format=record").as_deref(), Ok("file:a.ndjson?format=record"));
        assert_eq!(file_url("-").as_deref(), Ok("file:-"));
        assert!(file_url("local:a.db?queue=x").unwrap_err().contains("local: is neither"));
        assert_eq!(file_url("2026-03-01T12:00.ndjson").as_deref(), Ok("file:2026-03-01T12:00.ndjson"));
    }

    #[test]
    fn dead_letters_in_a_file_are_whole_messages_unless_it_says_otherwise() {
        assert_eq!(dead_letter_url("file:a.dead"), "file:a.dead?format=record");
        assert_eq!(dead_letter_url("file:a.dead?declare=false"), "file:a.dead?declare=false&format=record");
        for same in ["file:a.dead?format=payload", "local:a.db?queue=dead", "nothing"] {
            assert_eq!(dead_letter_url(same), same);
        }
    }

    proptest! {
        #[test]
        fn every_path_comes_out_of_its_url_again(path in "/{0,3}[a-z%?&=$ {}.\\-é#]{1,12}[a-z]") {
            let url = Url::parse(&file_url(&path).unwrap()).unwrap();
            prop_assert_eq!(url.path(), path);
            prop_assert!(url.hosts().is_empty());
        }
    }
}
