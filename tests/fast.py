"""Which tests are not `fast`: `pytest -m fast` runs all others, in less than a minute, on macOS and Windows too."""

SECONDS = """
    test_advice.py::test_a_run_remembers_its_size_and_where_its_data_came_from
    test_assigners.py::test_atss_is_the_naive_one_also_where_anchors_tie
    test_backbones.py::test_resnext_is_torchvisions
    test_bench_losses.py
    test_bench_peers.py::test_detectors
    test_bench_peers.py::test_rows
    test_bench_star.py
    test_calibration.py::test_spearman_equals_scipy_with_ties
    test_chapter_00.py::test_every_scene_has_its_surprise
    test_chapter_00.py::test_maps_and_detections_are_torchs
    test_chapter_00.py::test_verdicts_are_pythons
    test_chapter_04.py::test_explorer
    test_chapter_04.py::test_influence_is_the_sum_of_all_squared_gradients
    test_chapter_10.py::test_a_pupil_depends_on_seed_and_loss_alone
    test_chapter_10.py::test_the_command
    test_chapter_13.py::test_kernels
    test_chapter_14.py::test_outputs_losses_gradients
    test_chapter_17.py
    test_coco.py::test_outlines_do_not_fill_the_memory
    test_detector.py::test_features
    test_detector.py::test_images_of_any_size
    test_detector.py::test_outputs
    test_detector.py::test_training
    test_export.py
    test_fold.py::test_answering_in_between_changes_no_step
    test_heads.py::test_overfits_two_pictures
    test_inference.py::test_a_compiled_network_serves_images_of_all_sizes
    test_inference.py::test_many_images_give_a_list_and_weak_boxes_are_left_out
    test_pretrained.py::test_numbers_beside_the_weights
    test_real_photographs.py
    test_star.py::test_export_is_made_of_standard_operators_for_any_size
    test_star.py::test_gradients
    test_star.py::test_gradients_of_gradients
    test_star_layout.py::test_gradients_arrive_channels_last
    test_star_triton.py
    test_summary.py::test_deformable_convolutions_count
    test_train.py::test_accumulated_passes_are_one_step
    test_train.py::test_averaged_weights
    test_train.py::test_other_classes_start_their_last_layers_anew
    test_train.py::test_parameter_groups
    test_train.py::test_stopped_and_resumed_is_the_same_run
    test_viz.py::test_earlier_pictures_stay
    test_weights.py::test_a_config_that_agrees_is_no_obstacle
    test_weights.py::test_same_keys_but_another_model
"""
PROCESSES = """
    book
    test_bench_speedrun.py::test_the_command
    test_bench_peers.py::test_the_command
    test_bench_peers.py::test_the_profiler_is_quiet
    test_chapter_13.py::test_the_kernels_compile_for_a_gpu
    test_chapter_13.py::test_without_triton_the_chapter_says_so_and_goes_on
    test_chapter_18.py::test_two_machines
    test_check.py::test_exit_code
    test_evaluate.py::test_two_processes_give_what_one_gives
    test_front_door.py::test_import_is_light
    test_loader.py::test_a_bad_image_is_named
    test_loader.py::test_a_bug_is_not_taken_for_a_dead_worker
    test_loader.py::test_a_hanging_worker_is_explained
    test_loader.py::test_a_killed_worker_is_explained
    test_loader.py::test_global_random_numbers_are_left_alone
    test_loader.py::test_the_number_of_workers_changes_nothing
    test_shapes.py::test_concurrent_writers
    test_star.py::test_a_cpu_needs_no_triton
    test_star_compile.py
    test_train.py::test_a_closed_pipe_is_no_lack_of_memory
    test_train.py::test_a_torn_diary_and_a_lost_config_do_not_stop_a_resume
    test_train.py::test_a_worker_that_outlives_its_run_does_not_hold_the_folder
    test_train.py::test_asked_to_stop
    test_train.py::test_disk_full
    test_train.py::test_killed_at_any_time
    test_train.py::test_killed_while_saving
    test_train.py::test_one_process_per_folder
    test_train.py::test_two_processes
    test_train.py::test_workers_do_not_change_a_run
"""
POSIX = """
    test_cache.py::test_a_link_has_no_entry_of_its_own
    test_check.py::test_broken_images
    test_check.py::test_pictures_from_outside_are_not_shown
    test_coco.py::test_files
    test_coco.py::test_linked_folder_that_leaves_is_refused
"""  # links, and names of files that differ only by case
NOT_FAST = [line.strip() for line in (SECONDS + PROCESSES + POSIX).splitlines() if line.strip()]


def is_fast(name: str) -> bool:
    """`name`: of a test, seen from this folder, as in ``test_star.py::test_offsets[8]``."""
    return not any(name == start or name.startswith((start + "[", start + "::", start + "/")) for start in NOT_FAST)
