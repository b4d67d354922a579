//! Durations as people write them: `25s`, `500ms`, `5m`.

use std::time::Duration;

/// Reads `25s`, `500ms`, `5m`, `1h30m`. A bare number is refused: it does not say its unit.
pub fn parse(text: &str) -> Result<Duration, String> {
    let hint = || format!("'{text}' is no duration such as 500ms, 25s or 5m");
    let text = text.trim();
    let parsed: jiff::SignedDuration = text.parse().map_err(|_| hint())?;
    Duration::try_from(parsed).map_err(|_| hint())
}

/// Reads a duration in which a bare number means seconds, as in `SHUTDOWN_TIMEOUT=25`.
pub fn parse_or_seconds(text: &str) -> Result<Duration, String> {
    match text.trim().parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|_| format!("'{text}' is no number of seconds")),
        Err(_) => parse(text),
    }
}

/// Writes a duration as short as a person wants it: `850ms`, `2.4s`, `25s`, `3m 20s`.
pub fn short(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        0 if duration.is_zero() => "0s".into(),
        0 => format!("{}µs", duration.as_micros()),
        1..1_000 => format!("{millis}ms"),
        1_000..60_000 => {
            let tenths = (millis + 50) / 100;
            if tenths.is_multiple_of(10) {
                format!("{}s", tenths / 10)
            } else {
                format!("{}.{}s", tenths / 10, tenths % 10)
            }
        }
        60_000..3_600_000 => format!("{}m {}s", millis / 60_000, millis / 1_000 % 60),
        _ => format!("{}h {}m", millis / 3_600_000, millis / 60_000 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, wanted) in [("25s", 25_000), ("500ms", 500), ("5m", 300_000), ("1h30m", 5_400_000)] {
            assert_eq!(parse(text), Ok(Duration::from_millis(wanted)), "{text}");
        }
    }

    #[test]
    fn refuses_a_number_without_unit_and_a_negative_one() {
        for text in ["25", "-5s", "soon", ""] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_bare_number_is_seconds_where_that_is_the_rule() {
        assert_eq!(parse_or_seconds("25"), Ok(Duration::from_secs(25)));
        assert_eq!(parse_or_seconds("2.5"), Ok(Duration::from_millis(2500)));
        assert_eq!(parse_or_seconds("500ms"), Ok(Duration::from_millis(500)));
        assert!(parse_or_seconds("-1").is_err());
    }

    #[test]
    fn writes_short() {
        for (millis, wanted) in [(0, "0s"), (850, "850ms"), (2_400, "2.4s"), (25_000, "25s"), (200_000, "3m 20s")] {
            assert_eq!(short(Duration::from_millis(millis)), wanted);
        }
    }
}
