//! What is promised of the process: it starts, works, stops in time and says how, by real signals to a real child.
//!
//! `LONGSHORE_TEST_FULL=1` repeats as often and waits as long as the promise says; else both are about a tenth.

#[path = "../support/child.rs"]
mod support;

mod hangs;
mod lives;
mod refusals;
mod secrets;
mod starts;
mod stops;
mod terminal;

use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;
use std::sync::{PoisonError, RwLock};

/// Tests that measure a time or take every core hold it alone.
static MACHINE: RwLock<()> = RwLock::new(());

macro_rules! trials {
    ($hold:ident: $($module:ident::$name:ident,)*) => {
        [$(Trial::test(stringify!($name), || {
            let _held = MACHINE.$hold().unwrap_or_else(PoisonError::into_inner);
            $module::$name();
            Ok(())
        }),)*]
    };
}

fn main() -> ExitCode {
    if let Some(code) = support::child(&lives::ALL) {
        return code;
    }
    let together = trials! { read:
        hangs::a_task_asleep_and_a_blocking_call_that_never_returns_hold_nobody_up,
        hangs::a_close_that_hangs_is_named_and_the_others_still_close,
        hangs::a_close_that_fails_is_named_and_the_others_still_close,
        hangs::a_slow_close_is_waited_for_and_warned_about,
        hangs::a_handler_that_outlives_the_deadline_is_named_and_its_message_goes_back,
        refusals::everything_that_is_wrong_is_told_at_once_with_78,
        refusals::bad_input_without_a_dead_letter_place_ends_with_65,
        refusals::a_resource_that_cannot_be_opened_ends_with_1_and_the_earlier_ones_close,
        refusals::a_service_that_cannot_be_kept_alive_drains_the_app_and_ends_with_70,
        secrets::no_secret_of_a_url_appears_in_any_failure,
        secrets::no_secret_of_a_configuration_file_appears_in_any_failure,
        secrets::no_admin_token_appears_in_the_log,
        starts::a_sigterm_at_any_moment_of_the_start_is_obeyed_and_leaves_no_orphan,
        stops::a_stop_over_http_turns_not_ready_at_once_and_the_sigterm_behind_it_changes_nothing,
        stops::a_handler_beyond_the_deadline_ends_before_the_grace_of_the_pod,
        stops::a_second_sigterm_changes_nothing,
        stops::a_third_sigint_exits_now,
        stops::sigquit_dumps_what_runs_and_the_process_goes_on,
        stops::the_report_is_one_line_of_json_and_stdout_stays_clean,
        terminal::one_ctrl_c_at_a_terminal_ends_an_idle_app_with_a_table,
        terminal::one_ctrl_c_at_a_terminal_lets_running_handlers_finish,
    };
    let alone = trials! { write:
        hangs::a_blocked_executor_ends_by_the_deadline_and_names_worker_and_message,
        hangs::a_leaked_endless_thread_holds_nobody_up,
        stops::an_idle_app_ends_at_once,
        stops::running_handlers_are_settled_and_the_process_ends_right_after_the_last,
        stops::a_second_sigint_ends_with_130_within_a_second,
    };
    libtest_mimic::run(&Arguments::from_args(), together.into_iter().chain(alone).collect()).exit_code()
}
