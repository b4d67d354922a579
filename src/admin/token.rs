//! Who may change something.

use crate::transport::Secret;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use std::hint::black_box;

/// Decides who may `POST`.
pub(super) struct Guard {
    token: Option<Secret>,
}

impl Guard {
    /// An empty token is none: a variable that is set to nothing must not let everybody in.
    pub(super) fn new(token: Option<Secret>) -> Self {
        Self { token: token.filter(|token| !token.reveal().is_empty()) }
    }

    /// Why the request is refused, if it is.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), &'static str> {
        let Some(token) = &self.token else {
            return Err("no token is configured: set LONGSHORE_ADMIN_TOKEN to allow POST");
        };
        let mut given = headers.get_all(AUTHORIZATION).iter();
        let (Some(given), None) = (given.next(), given.next()) else {
            return Err("the token is missing: send one header 'Authorization: Bearer TOKEN'");
        };
        match bearer(given.as_bytes()) {
            None => Err("the authorization is of the wrong kind: send 'Authorization: Bearer TOKEN'"),
            Some(given) if same(given, token.reveal().as_bytes()) => Ok(()),
            Some(_) => Err("the token is wrong"),
        }
    }
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer ";
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then(|| token.trim_ascii())
}

/// Compares in a time that depends on the length of what was given, which its sender knows, and on nothing else: an
/// early end would tell how many bytes were right.
fn same(given: &[u8], token: &[u8]) -> bool {
    let mut different = u8::from(given.len() != token.len());
    for (at, byte) in given.iter().enumerate() {
        // Without the black box the compiler may find an end that is earlier.
        different = black_box(different | (byte ^ token[at % token.len()]));
    }
    different == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn check(token: Option<&str>, given: &[&str]) -> Result<(), &'static str> {
        let mut headers = HeaderMap::new();
        for value in given {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        Guard::new(token.map(Secret::new)).check(&headers)
    }

    #[test]
    fn only_the_whole_token_opens() {
        for given in ["Bearer s3cret", "bearer s3cret", "BEARER  s3cret "] {
            assert_eq!(check(Some("s3cret"), &[given]), Ok(()), "{given}");
        }
        for given in ["Bearer s3cre", "Bearer s3cret1", "Bearer s3crets3cret", "Bearer S3CRET", "Bearer ", "Bearer x"] {
            assert_eq!(check(Some("s3cret"), &[given]), Err("the token is wrong"), "{given}");
        }
    }

    #[test]
    fn a_refusal_says_why() {
        assert!(check(Some("s3cret"), &[]).unwrap_err().contains("missing"));
        assert!(check(Some("s3cret"), &["Bearer s3cret", "Bearer s3cret"]).unwrap_err().contains("one header"));
        for given in ["Basic s3cret", "s3cret", "Bearer", ""] {
            assert!(check(Some("s3cret"), &[given]).unwrap_err().contains("wrong kind"), "{given}");
        }
    }

    #[test]
    fn without_a_configured_token_nobody_gets_in() {
        for token in [None, Some("")] {
            for given in [&[][..], &["Bearer "], &["Bearer x"]] {
                assert!(check(token, given).unwrap_err().contains("LONGSHORE_ADMIN_TOKEN"));
            }
        }
    }
}
