"""The list of attacks: what a machine, a file, a name or a person does to a run, and the tests that do it.

An attack is held when the run goes on and its data is what it would have been, and answered when it ends, or a record
is rejected, with a reason that names what is wrong. It is not held when its test fails. `tests/proof.py` counts them;
a test with parameters is one attack for each, and one that tries many (`attacked`) as many as it has tried.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Ends = Literal["held", "answered"]
HELD: Ends = "held"
ANSWERED: Ends = "answered"


@dataclass(frozen=True, kw_only=True)
class Attack:
    kind: str
    test: str
    """Path below tests/, and perhaps `::function`."""
    ends: Ends


MACHINE = "faults of the machine: reads, opens, looks, memory, mounts"
DISK = "disks that are full, over quota, read-only or without links"
KILLERS = "records and tokenizers that crash, hang, panic, or are not the same twice"
INPUTS = "hostile inputs: bombs, headers, names, depth, numbers"
DAMAGE = "damaged raw files"
TAMPERING = "tampering: flipped bits, cuts, edits, also sealed again"
RECORDS = "hostile ledgers and logs, and what is shown of them"
CODE = "code in data: pickles, links, paths, batch scripts"
NAMES = "names and quoting"
OWNERS = "files of other users, and permissions"
KINDS = (MACHINE, DISK, KILLERS, INPUTS, DAMAGE, TAMPERING, RECORDS, CODE, NAMES, OWNERS)

_LIST: dict[str, dict[Ends, tuple[str, ...]]] = {
    MACHINE: {
        HELD: (
            "sources/test_read_faults.py",
            "test_read_faults.py::test_while_reading_the_shard_is_left_open_and_the_next_task_finishes_it",
            "test_read_faults.py::test_a_read_that_fails_once_while_planning_is_tried_again",
            "test_read_faults.py::test_no_fault_of_reading_loses_or_rejects_a_sample",
            "work/test_missing_mount.py::test_a_launch_killed_right_behind_its_plan_has_named_its_witnesses",
            "work/test_unreadable.py::test_what_can_be_read_a_second_time_is_written",
            "work/test_poison.py::test_many_killers_in_a_row_are_told_from_a_machine_on_which_everything_dies",
            "media/test_opening.py::test_a_decoder_without_memory_does_not_blame_the_picture",
            "media/test_jpeg.py::test_memory_that_is_out_is_no_reject",
            "work/test_task.py::test_a_crash_at_any_step_of_planning_is_finished_by_the_next_launch",
        ),
        ANSWERED: (
            "test_read_faults.py::test_while_planning_nothing_is_planned_and_the_next_launch_plans_all_rows",
            "test_read_faults.py::test_a_look_at_an_input_that_fails_is_one_line_that_names_it",
            "work/test_missing_mount.py::test_a_machine_without_the_pictures_rejects_none_and_stops",
            "work/test_missing_mount.py::test_where_it_goes_missing_in_the_middle_of_a_shard_its_checkpoint_holds_no_reject",
            "work/test_missing_mount.py::test_texts_that_are_missing_with_their_pictures_are_not_missing_for_good",
            "work/test_unreadable.py::test_what_three_tasks_could_not_read_is_rejected_and_taken_back_when_it_can_be_read",
            "work/test_unreadable.py::test_a_machine_that_can_read_nothing_rejects_nothing",
            "work/test_unreadable.py::test_status_names_the_file_that_a_shard_waits_for",
            "work/test_poison.py::test_a_machine_on_which_everything_dies_rejects_nothing",
            "base/test_file_systems.py::test_an_input_that_goes_while_its_run_is_at_work_is_named",
            "hostile/test_unlisted_folders.py",
            "sources/test_mix.py::test_a_fault_of_reading_makes_no_mix_another_file",
            "sources/test_arrow.py::test_a_list_of_files_that_cannot_be_trusted_is_not_taken_for_less_data",
            "catalogue/transfer/test_hashing.py::test_bytes_that_do_not_come_are_a_fault_of_the_machine_and_no_other_sum",
        ),
    },
    DISK: {
        HELD: (
            "base/test_file_systems.py::test_without_hard_links",
            "base/test_file_systems.py::test_with_times_of_two_seconds",
            "shards/test_writing.py::test_a_fault_of_the_disk_at_any_step_loses_no_checkpoint",
            "test_full_disk.py::test_a_claim_that_could_not_be_written_is_not_there",
        ),
        ANSWERED: (
            "test_full_disk.py::test_each_point_ends_with_a_line_without_litter_and_the_next_try_succeeds",
            "base/test_file_systems.py::test_a_full_disk_is_one_line_and_the_run_goes_on_later",
            "base/test_file_systems.py::test_a_read_only_output_is_one_line",
            "work/test_task.py::test_a_full_disk_ends_the_task_with_one_line_and_the_next_one_finishes",
        ),
    },
    KILLERS: {
        HELD: (
            "work/test_poison.py::test_bytes_do_not_depend_on_how_the_poison_was_found",
            "work/test_poison.py::test_kills_by_the_scheduler_are_never_counted_against_a_record",
            "work/test_poison.py::test_only_the_batches_that_were_in_work_are_suspected",
            "work/test_poison.py::test_a_local_run_goes_on_after_its_only_task_crashed",
            "encoders/text/test_panics.py::test_the_others_of_a_batch_have_their_ids",
            "encoders/text/test_tokenizer.py::test_bpe_dropout_is_not_applied",
            "encoders/text/test_tokenizer.py::test_any_text_encodes_the_same_alone_and_in_a_batch",
        ),
        ANSWERED: (
            "work/test_poison.py::test_a_record_that_kills_its_process_is_rejected_and_its_neighbours_are_written",
            "work/test_poison.py::test_a_record_that_takes_the_memory_of_the_whole_task_is_found",
            "work/test_poison.py::test_records_that_kill_the_process_that_reads_them_are_rejected_too",
            "work/test_poison.py::test_the_killer_among_several_inputs_is_rejected_by_its_own_name",
            "work/test_poison.py::test_a_decoder_that_hangs_is_ended_and_its_record_rejected",
            "work/test_poison.py::test_a_picture_that_takes_too_much_cpu_time_is_found_and_rejected_by_the_limit",
            "work/test_joined_shards.py::test_what_kills_its_reader_is_rejected_by_its_own_input",
            "encoders/text/test_panics.py::test_a_run_rejects_the_text_and_writes_the_others",
            "stages/test_copy.py::test_a_picture_that_kills_its_process_is_rejected_and_its_neighbours_are_copied",
        ),
    },
    INPUTS: {
        HELD: (
            "hostile/test_inputs.py::test_what_a_gzip_decoder_is_given_grows_with_the_input",
            "sources/test_limits.py::test_the_dictionary_of_a_column_tells_how_large_its_rows_may_be",
            "sources/test_sets.py::test_the_largest_number_of_a_picture_has_its_annotations",
            "sources/test_limits.py::test_folders_may_be_nested_deeper_than_the_interpreter_s_stack",
            "encoders/image/test_layouts.py::test_a_list_of_weights_takes_no_memory_that_its_file_does_not_have",
            "encoders/text/test_tokenizer.py::test_large_texts_are_encoded_in_turn_to_the_same_ids",
            "test_floors.py",
        ),
        ANSWERED: (
            "hostile/test_inputs.py::test_an_input_takes_no_more_time_and_memory_than_its_limits",
            "hostile/test_hostile_run.py",
            "hostile/test_corpora.py",
            "hostile/test_annotations.py",
            "sources/test_picture_tables.py::test_a_value_that_python_has_none_for_costs_its_row_alone",
            "base/foreign/test_yaml_text.py::test_what_takes_the_machine_or_is_no_value_is_an_error_of_one_line",
            "sources/test_custom.py::test_a_mapping_whose_aliases_stand_for_all_memory_is_refused",
            "sources/test_limits.py::test_a_line_of_a_table_has_a_limit_and_is_not_held_in_memory_before",
            "sources/test_limits.py::test_a_table_of_old_line_ends_is_refused_in_one_line",
            "sources/test_sets.py::test_answers_of_other_types_are_told",
            "sources/test_sets.py::test_what_is_nested_deeper_than_json_is_written_is_no_box",
            "sources/test_masks.py::test_what_would_be_drawn_for_hours_is_no_mask_or_refused",
            "sources/test_masks.py::test_masks_of_a_record_have_a_limit_together",
            "sources/test_limits.py::test_a_file_that_unpacks_to_far_more_than_its_size_is_refused_when_it_is_planned",
            "sources/test_limits.py::test_large_lines_are_refused_where_small_ones_of_the_same_bytes_are_not",
            "sources/test_limits.py::test_rows_that_repeat_a_large_text_are_rejected_in_every_slice_alike",
            "sources/test_limits.py::test_a_name_beyond_the_limit_is_one_reject_with_a_short_key",
            "sources/test_limits.py::test_a_packed_document_of_far_more_than_its_size_is_rejected",
            "sources/test_lines.py::test_decompression_bomb_is_one_reject",
            "sources/test_tars.py::test_an_endless_name_is_damage",
            "sources/test_tars.py::test_image_limits",
            "archives/test_unpacking.py::test_a_bomb_has_a_limit_by_name",
            "archives/test_unpacking.py::test_members_that_overlap_are_a_bomb",
            "archives/test_unpacking.py::test_names_that_no_path_holds_are_told_and_what_they_took_is_short",
            "archives/test_unpacking.py::test_folders_have_a_limit_as_members_have_one",
            "media/test_opening.py::test_a_jpeg_that_repeats_its_scans_is_refused_unread",
            "media/test_sizes.py::test_impossible_ratios_are_refused",
            "encoders/text/test_tokenizer.py::test_lone_surrogates_are_rejected",
            "fuzz/test_fuzz.py",
        ),
    },
    DAMAGE: {
        ANSWERED: (
            "sources/test_documents.py::test_damage_late_in_a_row_group",
            "sources/test_documents.py::test_damaged_parquet_loses_its_row_group_only",
            "sources/test_picture_tables.py::test_a_damaged_row_group_loses_its_own_rows",
            "sources/test_tars.py::test_damaged_header_loses_its_member_only",
            "sources/test_tars.py::test_gzip_that_is_damaged_keeps_what_came_before",
            "sources/test_contents.py::test_what_cannot_be_read_is_refused_by_its_content",
            "media/test_jpeg.py::test_damaged_jpegs_are_what_pillow_makes_of_them",
            "media/test_pixels.py::test_damaged_bytes_give_pixels_or_one_and_the_same_reject",
            "work/test_listed_documents.py::test_a_document_that_changed_is_refused_or_rejected_alone_and_taken_in_when_it_is_back",
            "work/test_task.py::test_an_input_that_grows_while_it_is_planned_is_refused",
        ),
    },
    TAMPERING: {
        HELD: (
            "shards/test_writing.py::test_a_damaged_checkpoint_is_not_used",
            "shards/test_writing.py::test_a_checkpoint_whose_account_was_changed_is_not_used",
            "dataset/test_tampering.py::test_an_edited_manifest_is_found_refused_and_made_again",
        ),
        ANSWERED: (
            "dataset/test_flips.py",
            "dataset/test_tampering.py::test_every_flip_breaks_the_seal",
            "dataset/test_tampering.py::test_verify_finds_an_edit_of_a_run",
            "formats/test_target.py",
            "dataset/test_tampering.py::test_an_edited_account_of_a_part_is_found",
            "dataset/test_tampering.py::test_an_edited_account_of_a_shard_is_found_before_it_is_combined",
            "dataset/test_combining.py::test_verify_finds_damage_and_names_the_shard",
            "dataset/test_combining.py::test_a_shard_whose_file_was_cut_is_refused_by_name",
            "dataset/test_joined.py::test_damage_is_found",
            "dataset/test_dataset.py::test_a_damaged_part_is_named_when_opened",
            "dataset/test_manifest.py::test_refuses_damage",
            "dataset/test_partlist.py::test_a_damaged_part_is_refused",
            "shards/test_writing.py::test_every_damaged_or_missing_or_added_file_is_found",
            "work/test_retry.py::test_a_damaged_retry_is_seen",
            "work/test_listed_documents.py::test_a_listing_that_was_damaged_is_said",
            "encoders/test_batching.py::test_a_damaged_file_is_named",
            "native/test_compiled.py::test_damaged_columns_are_errors",
            "native/test_threads.py::test_damage_is_found_by_any_thread",
            "catalogue/test_fetching.py::test_a_record_of_other_types_that_was_sealed_again_is_said",
            "catalogue/test_fetching.py::test_notes_of_a_part_that_are_none_say_nothing",
            "catalogue/transfer/test_hashing.py::test_a_pipe_is_no_file_and_nobody_waits_for_it",
            "archives/test_unpacking.py::test_a_pipe_in_the_place_of_a_member_is_no_member_and_nobody_waits_for_it",
            "loading/test_loader.py::test_a_damaged_state_is_refused",
        ),
    },
    RECORDS: {
        HELD: (
            "hostile/test_hostile_ledgers.py",
            "history/test_ledger.py::test_damaged_lines_are_left_out",
            "report/test_tails.py::test_hostile_logs_cannot_steer_the_terminal",
            "report/test_tails.py::test_captions_are_never_shown_unless_asked",
            "report/test_page.py::test_text_of_other_processes_stays_text",
            "api/test_running.py::test_a_notebook_gets_a_table_with_everything_escaped",
            "dataset/test_decoding.py::test_a_notebook_gets_the_account_and_pictures_with_everything_escaped",
            "base/test_command.py::test_foreign_text_is_shown_and_not_obeyed",
        ),
    },
    CODE: {
        ANSWERED: (
            "encoders/image/test_checkpoints.py::test_a_pickle_with_code_does_not_run",
            "encoders/image/test_layouts.py::test_code_in_a_file_does_not_run",
            "encoders/image/test_layouts.py::test_what_is_no_checkpoint_is_refused_in_one_line",
            "encoders/text/test_tokenizer.py::test_a_pickle_that_claims_to_be_a_tokenizer_does_not_run",
            "sources/test_tars.py::test_hostile_members_are_labels_at_most",
            "sources/test_lines.py::test_hostile_image_paths",
            "sources/test_pictures.py::test_a_path_that_leads_out_of_the_folder_is_refused",
            "sources/test_pictures.py::test_a_link_that_leads_out_of_the_folder_is_refused_when_it_is_read",
            "config/test_scheduler.py::test_a_key_of_additional_parameters_is_the_name_of_an_option",
            "config/test_scheduler.py::test_a_value_of_additional_parameters_stays_on_its_line",
            "config/test_scheduler.py::test_what_no_script_may_hold_is_refused",
            "config/test_scheduler.py::test_no_text_of_the_cluster_breaks_its_line",
            "slurm/test_sbatch_text.py::test_no_script_is_made_of_settings_that_would_break_it",
        ),
    },
    NAMES: {
        HELD: (
            "test_odd_names.py",
            "config/test_places.py::test_odd_names_arrive_as_they_were_typed",
            "config/test_config.py::test_paths_need_no_second_layer_of_quotes",
            "work/test_listed_documents.py::test_names_that_are_not_utf8",
            "base/test_command.py::test_what_a_shell_makes_of_a_line_to_type_is_what_was_meant",
            "base/test_command.py::test_what_cannot_be_printed_is_typed_as_escapes",
        ),
        ANSWERED: ("config/test_places.py::test_a_folder_whose_name_slurm_misreads_is_refused",),
    },
    OWNERS: {
        HELD: ("base/test_modes.py",),
        ANSWERED: ("runs/test_ownership.py", "runs/test_second_user.py"),
    },
}
ATTACKS = [
    Attack(kind=kind, test=test, ends=ends)
    for kind, tests in _LIST.items()
    for ends, names in tests.items()
    for test in names
]


def find(nodeid: str) -> Attack | None:
    """The attack that a test is. nodeid: as pytest names it, from the folder of the project or of the tests."""
    path, _, function = nodeid.removeprefix("tests/").partition("::")
    name = f"{path}::{function.partition('[')[0]}"
    return next((attack for attack in ATTACKS if attack.test in (path, name)), None)
