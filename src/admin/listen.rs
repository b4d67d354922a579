//! Where the admin server listens.

use crate::error::Error;
use std::fmt;
use std::str::FromStr;

/// `off`, or `HOST:PORT`; port 0 chooses a free one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminListen {
    /// No server.
    Off,
    /// A host name or address, and a port; as written.
    At(String),
}

impl AdminListen {
    /// What `App::run` and `longshore run` use where nobody says otherwise: loopback, so that only who is on the
    /// machine, or in the pod, can ask.
    pub fn loopback() -> Self {
        Self::At("127.0.0.1:8080".to_owned())
    }
}

impl FromStr for AdminListen {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let wrong = |why: &str| {
            let hint = "expected off or HOST:PORT, such as 127.0.0.1:8080";
            Error::configuration(format!("admin.listen: '{text}' {why}, {hint}"))
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(|| wrong("has no port"))?;
        if host.is_empty() {
            return Err(wrong("has no host"));
        }
        // `::1:8080` could be meant in two ways.
        let bracketed = host.starts_with('[') && host.ends_with(']');
        if host.contains(':') && !bracketed {
            return Err(wrong("needs brackets around its IPv6 address"));
        }
        if !port.bytes().all(|each| each.is_ascii_digit()) || port.parse::<u16>().is_err() {
            return Err(wrong("has a port that is no number from 0 to 65535"));
        }
        Ok(Self::At(text.to_owned()))
    }
}

impl fmt::Display for AdminListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::At(address) => f.write_str(address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn off_and_addresses_are_read_and_shown_as_written() {
        for text in ["off", "127.0.0.1:8080", "localhost:0", "[::1]:9090", "0.0.0.0:65535"] {
            assert_eq!(text.parse::<AdminListen>().unwrap().to_string(), text);
        }
        assert_eq!(AdminListen::loopback().to_string().parse::<AdminListen>().unwrap(), AdminListen::loopback());
    }

    #[test]
    fn a_wrong_address_is_named_with_what_is_wrong() {
        for (text, why) in [
            ("", "has no port"),
            ("8080", "has no port"),
            (":8080", "has no host"),
            ("localhost:", "no number"),
            ("localhost:http", "no number"),
            ("localhost:+80", "no number"),
            ("localhost:65536", "no number"),
            ("::1:8080", "needs brackets"),
            ("http://localhost:8080", "needs brackets"),
        ] {
            let error = text.parse::<AdminListen>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            let said = error.to_string();
            assert!(said.starts_with(&format!("admin.listen: '{text}'")) && said.contains(why), "{said}");
        }
    }
}
