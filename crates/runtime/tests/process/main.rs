//! The process runtime with real processes.
//!
//! This program is the tests, and also what they start: the shim, a broker to be killed, a server with a port.

#![expect(
    clippy::unwrap_used,
    reason = "these are tests, though not under the usual harness, which clippy knows"
)]
#![expect(clippy::print_stdout, reason = "a broker to be killed says how far it is")]

mod crash;
mod end;
mod exec;
mod host;
mod start;

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// The test of this name, in a runtime of its own and with a [`host::Host`] of its own.
macro_rules! trials {
    ($($module:ident :: $name:ident),* $(,)?) => {
        vec![$(trial(concat!(stringify!($module), "::", stringify!($name)), |host| async move {
            $module::$name(&host).await
        })),*]
    };
}

fn main() -> ExitCode {
    let role = std::env::args_os().nth(1).unwrap_or_default();
    let argument = || PathBuf::from(std::env::args_os().nth(2).expect("a role has an argument"));
    match role.to_str() {
        Some(host::SHIM) => runtime::process::run_shim(&argument()),
        Some(host::BROKER) => crash::broker(&argument()),
        Some(host::SERVER) => end::server(argument().as_os_str() == OsStr::new("stubborn")),
        _ => libtest_mimic::run(&Arguments::from_args(), tests()).exit_code(),
    }
}

fn tests() -> Vec<Trial> {
    trials![
        start::an_agent_runs_and_ends_with_its_code_and_output,
        start::an_agent_that_a_signal_ended_has_its_code,
        start::an_agent_has_its_own_session_and_group,
        start::an_agent_has_a_clean_environment,
        start::a_command_that_cannot_be_run_is_told_apart,
        start::of_many_creations_of_one_name_one_wins,
        start::of_many_starts_one_starts_it,
        start::what_a_process_cannot_do_is_refused_by_name,
        start::logs_are_followed_to_the_end,
        start::a_listing_is_complete_or_fails,
        start::a_folder_is_no_one_elses_business,
        end::an_agent_may_end_by_itself_in_its_grace_time,
        end::an_agent_that_will_not_end_is_ended_by_force,
        end::an_agent_that_is_suspended_is_stopped,
        end::what_an_agent_daemonised_is_ended_with_it,
        end::ports_are_free_once_it_is_stopped,
        end::stopping_and_removing_what_is_gone_succeeds,
        end::a_former_id_does_not_mean_the_new_agent,
        crash::an_agent_outlives_its_broker,
        crash::an_agent_whose_shim_was_killed_is_known_and_stopped,
        crash::what_outlived_shim_and_command_is_known_and_stopped,
        crash::a_reused_pid_is_never_signalled,
        crash::a_command_about_to_start_is_known_though_its_shim_was_killed,
        crash::a_late_shim_starts_nothing_else,
        crash::nothing_is_lost_whenever_broker_and_shim_are_killed,
        crash::folders_that_were_not_finished_are_passed_over,
        exec::a_command_beside_an_agent_has_its_variables_and_streams,
        exec::a_command_beside_an_agent_that_cannot_run_is_told_apart,
        exec::a_command_beside_an_agent_ends_with_it,
        exec::output_ends_with_the_command_even_if_something_holds_the_pipe,
        exec::a_terminal_has_a_size_and_signals,
    ]
}

fn trial<F>(name: &str, test: impl FnOnce(host::Host) -> F + Send + 'static) -> Trial
where
    F: Future<Output = ()> + Send + 'static,
{
    Trial::test(name, move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(async {
            let host = host::Host::new();
            let outcome = tokio::spawn(test(host.clone())).await;
            // Also after a failure, so that no process outlives the tests.
            host.remove_all().await;
            match outcome.map_err(tokio::task::JoinError::try_into_panic) {
                Ok(()) => Ok(()),
                Err(Ok(panic)) => std::panic::resume_unwind(panic),
                Err(Err(error)) => Err(error.into()),
            }
        })
    })
}
