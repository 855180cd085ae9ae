//! End to end: real servers, the real binaries. One binary, because linking is what takes time.
//!
//! What a worker must do to pass for a dm-worker (numbers of the protocol's list of compatibility tests), and where it is
//! held; `unit` are tests in `src/control`. For each number one of its tests was seen to fail with the code that it holds taken out:
//!
//! | No | Test |
//! |---|---|
//! | 1 | `master_life::a_name_that_is_taken_is_refused_with_exit_code_2` |
//! | 2 | `master_states::a_kill_and_a_start_within_the_leases_time_move_nothing`, `master_move::another_worker_takes_over_a_killed_one` |
//! | 3 | `master_life::what_is_written_again_disturbs_nothing`, `master_wishes::the_relay_log_is_what_the_master_says` |
//! | 4, 5 | `master_life::start_pause_resume_stop_are_decided_by_the_first_poll` |
//! | 6 | `master_states::a_restart_in_each_state_changes_nothing` |
//! | 7 | the same, `master_states::a_lost_downstream_is_resumed_without_the_master` |
//! | 8 | `master_lease::compaction_while_away_loses_nothing`, `master_faults::compaction_behind_a_partition_hides_nothing` |
//! | 9, 15 | `master_lease::without_a_lease_nothing_is_written_and_everything_comes_back` |
//! | 10 | between two agents: `master_move::twenty_transfers_under_load`; with a stock dm-worker: not here |
//! | 11 | `master_wishes::a_failed_statement_is_skipped_through_the_master`, `declared::a_master_is_answered_as_recorded`, `master_wishes::every_other_method_answers` |
//! | 12 | `master_wishes::every_other_method_answers` |
//! | 13 | unit: `every_recorded_answer_keeps_its_bytes`, `every_recorded_status_can_be_told`, `a_whole_session_with_a_master_can_be_told`; on a running agent: `master_golden::states_are_told_as_recorded`, `master_golden::failures_are_told_as_by_a_dm_worker`, `master_faults::a_lost_source_is_told_to_the_master` |
//! | 14 | `master_wishes::a_forgotten_start_time_changes_nothing_and_a_wanted_one_is_honoured_once` |

#[path = "../support/mod.rs"]
mod support;

mod bad_input;
mod blackhole;
mod claim;
mod commands;
mod copy_bench;
mod copy_marks;
mod copy_meanwhile;
mod copy_refused;
mod copy_shapes;
mod copy_types;
mod ddl_there;
mod declared;
mod downstream;
mod exceptions;
mod expressions;
mod failover;
mod fallback;
mod faults;
mod filters;
mod lifecycle;
mod master_copy;
mod master_ctl;
mod master_faults;
mod master_golden;
mod master_lease;
mod master_life;
mod master_move;
mod master_odd;
mod master_port;
mod master_states;
mod master_suite;
mod master_tls;
mod master_wishes;
mod master_words;
mod memory;
mod online_ddl;
mod options;
mod park;
mod replicate;
mod resync;
mod schema;
mod selftest;
mod snapshot;
mod snapshot_ddl;
mod snapshot_link;
mod snapshot_yield;
mod start;
mod tls;
mod torture;
mod types;
mod upkeep;
mod xa;
