use super::*;
use proptest::prelude::*;

struct Letter {
    texts: Vec<(Field, String)>,
    age: Option<Duration>,
}

impl Fields for Letter {
    fn text(&self, field: Field) -> Option<String> {
        self.texts.iter().find(|(at, _)| *at == field).map(|(_, text)| text.clone())
    }

    fn age(&self) -> Option<Duration> {
        self.age
    }
}

fn letter() -> Letter {
    let texts = [
        (Field::Reason, "timeout"),
        (Field::Error, "no answer from \"db\""),
        (Field::Attempts, "3"),
        (Field::Key, "acme/7"),
        (Field::Position, "12"),
        (Field::DeadAt, "2026-03-01T12:00:00Z"),
    ];
    Letter {
        texts: texts.map(|(field, text)| (field, text.to_owned())).into(),
        age: Some(Duration::from_secs(90 * 60)),
    }
}

fn holds(filter: &str) -> bool {
    filter.parse::<Filter>().unwrap_or_else(|wrong| panic!("{wrong}")).matches(&letter())
}

#[test]
fn the_example_of_the_help_means_what_it_says() {
    assert!(holds("reason~timeout and age<2h"));
    assert!(!holds("reason~timeout and age<1h"));
}

#[test]
fn fields_are_compared_as_what_they_are() {
    for yes in [
        "attempts>=3",
        "attempts<10",
        "position=12",
        "key=acme/7",
        "error~'ANSWER FROM'",
        "error~\"\\\"db\\\"\"",
        "dead-at>2026-03-01",
        "dead-at<=2026-03-01T12:00:00Z",
        "age>1h and age<=1h30m and age<2d",
        "DEAD-AT ~ 2026-03",
        "not reason=panic",
    ] {
        assert!(holds(yes), "{yes}");
    }
    for no in ["attempts>3", "reason=time", "key=ACME/7", "dead-at>2026-03-02", "age=1h"] {
        assert!(!holds(no), "{no}");
    }
}

#[test]
fn a_field_that_is_not_there_equals_nothing() {
    for no in ["worker=x", "worker~x", "first-seen<2030-01-01", "first-seen>=1970-01-01"] {
        assert!(!holds(no), "{no}");
    }
    assert!(holds("worker!=x"));
}

#[test]
fn and_binds_closer_than_or_and_parentheses_closest() {
    assert!(holds("reason=timeout or reason=panic and attempts>5"));
    assert!(!holds("(reason=timeout or reason=panic) and attempts>5"));
    assert!(holds("not (reason=panic or attempts>5)"));
}

#[test]
fn an_error_shows_where() {
    for (filter, wanted) in [
        ("reasn~x", "unknown field 'reasn': did you mean 'reason'?\n  reasn~x\n  ^^^^^"),
        ("reason~", "expected a value\n  reason~\n         ^"),
        ("reason<x", "'reason' is text and has no order: use =, != or ~\n  reason<x\n        ^"),
        ("age<soon", "'soon' is no duration such as 500ms, 25s or 5m\n  age<soon\n      ^^^^"),
        ("(reason=x", "this '(' is not closed\n  (reason=x\n  ^"),
        ("reason=x)", "this ')' closes nothing\n  reason=x)\n          ^"),
        ("key=é oder", "expected 'and' or 'or'\n  key=é oder\n        ^^^^"),
        ("key='x", "this quote is not closed\n  key='x\n      ^^"),
        ("", "expected a field, such as reason\n  \n  ^"),
        ("attempts=many", "'attempts' is compared with a number such as 3\n  attempts=many\n           ^^^^"),
    ] {
        assert_eq!(filter.parse::<Filter>().unwrap_err().to_string(), wanted);
    }
}

#[test]
fn nesting_has_an_end() {
    let deep = |levels: usize| format!("{}age<1s{}", "(".repeat(levels), ")".repeat(levels)).parse::<Filter>();
    assert!(deep(DEPTH - 1).is_ok());
    assert!(deep(DEPTH).unwrap_err().to_string().starts_with("more than 64 levels"));
    assert!("not ".repeat(100_000).parse::<Filter>().is_err());
}

/// What a filter must mean, beside the parser.
#[derive(Debug, Clone)]
enum Model {
    Test(String, bool),
    Not(Box<Model>),
    And(Box<Model>, Box<Model>),
    Or(Box<Model>, Box<Model>),
}

impl Model {
    fn holds(&self) -> bool {
        match self {
            Self::Test(_, holds) => *holds,
            Self::Not(inner) => !inner.holds(),
            Self::And(left, right) => left.holds() && right.holds(),
            Self::Or(left, right) => left.holds() || right.holds(),
        }
    }

    /// Written with no more parentheses than the grammar asks for; `above` says what is around: 0 or, 1 and, 2 not.
    fn write(&self, above: u8) -> String {
        let (level, text) = match self {
            Self::Test(text, _) => (3, text.clone()),
            Self::Not(inner) => (2, format!("not {}", inner.write(2))),
            Self::And(left, right) => (1, format!("{} and {}", left.write(1), right.write(1))),
            Self::Or(left, right) => (0, format!("{} or {}", left.write(0), right.write(0))),
        };
        if level < above { format!("({text})") } else { text }
    }
}

fn model() -> impl Strategy<Value = Model> {
    let test = (0u64..6, 0usize..5).prop_map(|(number, op)| {
        let (sign, holds) =
            [("=", 3 == number), ("!=", 3 != number), ("<", 3 < number), (">=", 3 >= number), (">", 3 > number)][op];
        Model::Test(format!("attempts {sign} {number}"), holds)
    });
    test.prop_recursive(5, 32, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|inner| Model::Not(Box::new(inner))),
            (inner.clone(), inner.clone()).prop_map(|(left, right)| Model::And(Box::new(left), Box::new(right))),
            (inner.clone(), inner).prop_map(|(left, right)| Model::Or(Box::new(left), Box::new(right))),
        ]
    })
}

proptest! {
    #[test]
    fn a_filter_means_what_its_logic_means(model in model()) {
        prop_assert_eq!(holds(&model.write(0)), model.holds());
    }

    #[test]
    fn no_text_makes_it_panic_and_its_error_can_be_shown(text in "[a-z()=!~<>'\" \\\\é]{0,40}|.{0,40}") {
        if let Err(wrong) = text.parse::<Filter>() {
            prop_assert_eq!(wrong.to_string().lines().count(), 3);
        }
    }

    #[test]
    fn any_value_can_be_quoted(value in ".{0,20}") {
        let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
        let filter: Filter = format!("key=\"{escaped}\"").parse().unwrap();
        let letter = Letter { texts: vec![(Field::Key, value)], age: None };
        prop_assert!(filter.matches(&letter));
    }
}
