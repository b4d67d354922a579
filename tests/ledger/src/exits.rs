//! How processes have to end.

use crate::child::Ended;

/// How a process has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// With 0.
    Drained,
    /// With 0 where nothing is unknown; with 75 where something was not settled.
    AsReported,
    /// The same after an outage, whose unknown ones are in the report as well, and are no fault of the stop.
    AfterAnOutage,
}

/// What is wrong with the end of a process.
pub fn wrong(ended: &Ended, exit: Exit) -> Vec<String> {
    let Ended { name, code, report } = ended;
    let said = code.map_or("by a signal".to_owned(), |code| code.to_string());
    let Some(report) = report else { return vec![format!("{name}: exit {said} without a shutdown report")] };
    let [unknown, returned, abandoned] = ["unknown", "returned", "abandoned"].map(|count| ended.count(count));
    let mut wrong = Vec::new();
    let right = match (exit, code) {
        (Exit::Drained, code) => *code == Some(0),
        (Exit::AsReported, Some(0)) => unknown + abandoned == 0,
        (Exit::AfterAnOutage, Some(0)) => abandoned == 0,
        (Exit::AsReported | Exit::AfterAnOutage, Some(75)) => unknown + returned + abandoned > 0,
        (Exit::AsReported | Exit::AfterAnOutage, _) => false,
    };
    if !right {
        wrong.push(format!("{name}: exit {said} with unknown {unknown}, returned {returned}, abandoned {abandoned}"));
    }
    if ended.count("unaccounted") != 0 {
        wrong.push(format!("{name}: unaccounted {}", ended.count("unaccounted")));
    }
    if report["exit_code"].as_i64() != code.map(i64::from) {
        wrong.push(format!("{name}: reports exit {} and ends with {said}", report["exit_code"]));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ended(code: i32, unknown: i64, returned: i64) -> Ended {
        let total = json!({ "unknown": unknown, "returned": returned, "abandoned": 0, "unaccounted": 0 });
        let report = json!({ "exit_code": code, "total": total });
        Ended { name: "worker-1".to_owned(), code: Some(code), report: Some(report) }
    }

    fn is_right(ended: &Ended, exit: Exit) -> bool {
        wrong(ended, exit).is_empty()
    }

    #[test]
    fn a_stop_with_nothing_in_its_way_ends_with_0() {
        assert!(is_right(&ended(0, 0, 9), Exit::Drained));
        for code in [75, 70, 143] {
            assert!(!is_right(&ended(code, 0, 9), Exit::Drained), "{code}");
        }
    }

    #[test]
    fn a_stop_while_disconnected_ends_with_0_only_if_nothing_is_unknown_and_with_75_only_if_something_is_open() {
        assert!(is_right(&ended(0, 0, 0), Exit::AsReported));
        assert!(!is_right(&ended(0, 1, 0), Exit::AsReported));
        assert!(is_right(&ended(75, 1, 0), Exit::AsReported));
        assert!(is_right(&ended(75, 0, 1), Exit::AsReported));
        assert!(!is_right(&ended(75, 0, 0), Exit::AsReported));
        assert!(!is_right(&ended(69, 1, 1), Exit::AsReported));
    }

    #[test]
    fn a_stop_after_an_outage_may_end_with_0_though_the_outage_left_something_unknown() {
        assert!(is_right(&ended(0, 1, 0), Exit::AfterAnOutage));
        assert!(is_right(&ended(75, 1, 0), Exit::AfterAnOutage));
        assert!(!is_right(&ended(75, 0, 0), Exit::AfterAnOutage));
        assert!(!is_right(&ended(70, 1, 1), Exit::AfterAnOutage));
        let mut left = ended(0, 0, 0);
        left.report.as_mut().unwrap()["total"]["abandoned"] = json!(1);
        assert!(!is_right(&left, Exit::AfterAnOutage));
    }

    #[test]
    fn an_end_without_a_report_or_against_it_is_wrong() {
        assert!(!is_right(&Ended { report: None, ..ended(0, 0, 0) }, Exit::Drained));
        assert!(!is_right(&Ended { code: None, ..ended(0, 0, 0) }, Exit::AsReported));
        assert!(!is_right(&Ended { code: Some(0), ..ended(75, 1, 0) }, Exit::Drained));
    }

    #[test]
    fn messages_that_are_not_accounted_for_are_wrong() {
        let mut lost = ended(0, 0, 0);
        lost.report.as_mut().unwrap()["total"]["unaccounted"] = json!(1);
        assert!(!is_right(&lost, Exit::Drained));
    }
}
