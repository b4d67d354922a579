//! What a shell does to a command line that was not quoted.

use clap::error::ErrorKind;
use std::io;

/// What to say when arguments are missing, and a URL looks as if a `&` in it had ended the command.
pub fn lost_tail(kind: ErrorKind, arguments: &[String]) -> Option<String> {
    if kind != ErrorKind::MissingRequiredArgument {
        return None;
    }
    cut(arguments.last()?)
}

/// The hint for a URL with options that stands last.
fn cut(last: &str) -> Option<String> {
    let (scheme, rest) = last.split_once(':')?;
    let (_, options) = rest.split_once('?')?;
    let is_scheme = !scheme.is_empty() && scheme.chars().all(|each| each.is_ascii_alphanumeric());
    (is_scheme && options.contains('=')).then(|| {
        format!(
            "a shell takes a '&' as the end of a command: if one stood after '{options}', quote the URL, like \
             '{scheme}:…?{options}&…'"
        )
    })
}

/// Warns when a shell has put this command into the background and a URL stands last: it may have lost its tail, and
/// would run with half of its options.
pub fn warn_of_background() {
    if let Some(hint) = std::env::args().next_back().as_deref().and_then(cut)
        && (is_behind_a_terminal() || is_left_alone())
    {
        tracing::warn!("running in the background: {hint}");
    }
}

/// A shell with job control: another command has the terminal.
fn is_behind_a_terminal() -> bool {
    rustix::termios::tcgetpgrp(io::stderr()).is_ok_and(|foreground| foreground != rustix::process::getpgrp())
}

/// A shell without job control, as in a script: a command that ends with `&` ignores Ctrl+C and Ctrl+\, by POSIX.
fn is_left_alone() -> bool {
    const SIGINT: u32 = 2;
    const SIGQUIT: u32 = 3;
    // Not there elsewhere than on Linux.
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return false };
    let ignored = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    ignored.is_some_and(|ignored| [SIGINT, SIGQUIT].iter().all(|signal| ignored & (1 << (signal - 1)) != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(arguments: &[&str]) -> Option<String> {
        let arguments: Vec<String> = arguments.iter().map(|each| (*each).to_owned()).collect();
        lost_tail(ErrorKind::MissingRequiredArgument, &arguments)
    }

    #[test]
    fn a_url_that_stands_last_where_more_is_missing_lost_its_tail() {
        let said = hint(&["bridge", "file:in.ndjson?key=/key"]).unwrap();
        assert!(said.contains("'file:…?key=/key&…'"), "{said}");
    }

    #[test]
    fn a_command_line_that_is_wrong_otherwise_gets_no_hint() {
        assert_eq!(hint(&["bridge", "file:in.ndjson"]), None);
        assert_eq!(hint(&["bridge", "what?"]), None);
        assert_eq!(lost_tail(ErrorKind::UnknownArgument, &["file:a?key=/k".to_owned()]), None);
    }
}
