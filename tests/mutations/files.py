"""What makes a file of the store whole or absent, and never trusted unseen."""

from __future__ import annotations

from tests.mutations.protection import Protection, tests_of

_STORE = "unit/test_store.py"
_REMOTE = "unit/test_remote_store.py"
_DAMAGED = "training/test_damaged_checkpoints.py"
_OUTAGES = "training/test_outages.py"

FILES = (
    Protection(
        name="a folder without a manifest is no bundle",
        protects="Files that nobody has committed are seen by no reader.",
        file="store/local.py",
        code="        return None\n    return read_manifest(key, raw)",
        instead="        return Bundle(key=key, files={}, meta={})\n    return read_manifest(key, raw)",
        tests=tests_of(_STORE, "a_bundle_without_manifest_does_not_exist"),
    ),
    Protection(
        name="a manifest commits to the byte",
        protects="A manifest that is torn or has one other bit commits nothing.",
        file="store/bundle.py",
        code="return bundle if bundle.manifest() == raw else None",
        instead="return bundle",
        tests=("faults/test_corruption.py",),
    ),
    Protection(
        name="a manifest commits under its own key alone",
        protects="A finished folder that was not yet renamed when its publisher died does not exist.",
        file="store/bundle.py",
        code="bundle = Bundle(key=key, files=files",
        instead='bundle = Bundle(key=content["key"], files=files',
        tests=tests_of(
            "faults/test_publish_points.py",
            "a_publisher_killed_at_a_point_leaves_nothing_or_all_and_the_next_one_succeeds[checkpoint.fsynced]",
        ),
    ),
    Protection(
        name="files are checked against their digest",
        protects="One flipped bit in a file is noticed before the file is used.",
        file="store/bundle.py",
        code="if sha256_of(path) != sha256:",
        instead="if False:",
        tests=tests_of(_STORE, "a_changed_file_is_noticed"),
    ),
    Protection(
        name="a reference means one content",
        protects="Another bundle under the same key is not taken for the one that was signalled.",
        file="store/store.py",
        code="if digest is not None and bundle.digest != digest:",
        instead="if False:",
        tests=tests_of(_STORE, "another_digest_is_refused"),
    ),
    Protection(
        name="an object store's manifest is uploaded last",
        protects="An upload that is cut short leaves nothing that readers see.",
        file="store/remote.py",
        code='(*bundle.files, MANIFEST):\n                fs, path = self._open(f"{bundle.key}/{name}")\n'
        "                fs.makedirs",
        instead='(MANIFEST, *bundle.files):\n                fs, path = self._open(f"{bundle.key}/{name}")\n'
        "                fs.makedirs",
        tests=tests_of(_REMOTE, "an_upload_that_is_cut_short_commits_nothing"),
    ),
    Protection(
        name="a copy that somebody reads is kept",
        protects="Of two processes that fetch the same bundle, none takes from the other the copy that it reads.",
        file="store/remote.py",
        code=" and not self._has_copy(bundle):",
        instead=":",
        tests=tests_of(_REMOTE, "a_copy_that_another_process_has_made_meanwhile_and_may_read_is_kept"),
    ),
    Protection(
        name="what lies at a key is moved before it is looked at",
        protects="Two publishers of one key at once do not delete each other's bundle.",
        file="store/local.py",
        code="if _committed(aside, key) is None or not _move(aside, self.path(key)):",
        instead="if True:",
        tests=tests_of(_STORE, "a_publisher_that_clears_a_leftover_does_not_delete_what_another_has_just_committed"),
    ),
    Protection(
        name="what is damaged is set aside",
        protects="The key of a damaged bundle becomes free, and the evidence stays.",
        file="store/store.py",
        code="            place = self.set_aside(key)\n",
        instead="            place = None\n",
        tests=tests_of(_STORE, "a_damaged_bundle_is_set_aside_and_its_key_can_be_published_again"),
    ),
    Protection(
        name="what was made anew meanwhile is not set aside",
        protects="Whoever saw damage late does not take the good successor away.",
        file="store/local.py",
        code="if moved is not None and find_damage(aside, moved) is None and _move(aside, place):",
        instead="if False:",
        tests=tests_of(_STORE, "what_another_has_made_anew_is_not_set_aside"),
    ),
    Protection(
        name="an empty store is away, not damaged",
        protects="A file system that is not mounted is waited for, and no run begins anew because of it.",
        file="store/store.py",
        code="if self._place.is_empty():",
        instead="if False:",
        tests=tests_of(_STORE, "a_store_that_is_not_there_has_lost_nothing"),
    ),
    Protection(
        name="a damaged checkpoint is passed over",
        protects="The one before it serves, and the run ends as if nothing had happened.",
        file="training/state.py",
        code="return store.fetch_intact(checkpoint.key, note_which, digest=checkpoint.digest)",
        instead="return store.fetch(checkpoint.key, digest=checkpoint.digest)",
        tests=tests_of(_DAMAGED, "after_damage_to_the_newest_and_the_one_before_the_run_ends_as_if_undisturbed"),
    ),
    Protection(
        name="the checkpoint before the newest is kept",
        protects="There is one to fall back to.",
        file="training/selection.py",
        code="_NUM_LAST = 2\n",
        instead="_NUM_LAST = 1\n",
        tests=tests_of("unit/test_selection.py", "the_best_and_the_last_two_are_kept"),
    ),
    Protection(
        name="a damaged best checkpoint is trained again",
        protects="A resumed run does not go on from where its best can no longer be had.",
        file="training/state.py",
        code="if best is not None and best != candidate and not is_intact(store, best, note):",
        instead="if False:",
        tests=tests_of(_DAMAGED, "a_damaged_best_checkpoint_is_trained_again"),
    ),
    Protection(
        name="best and last checkpoint are checked at the end",
        protects="A result is reported only of checkpoints that are whole.",
        file="training/run.py",
        code="damaged = [c.step for c in shown if not is_intact(store, c, attempt.note)]",
        instead="damaged: list[int] = []",
        tests=tests_of(
            _DAMAGED, "a_best_checkpoint_that_is_damaged_while_training_goes_on_is_made_again_before_it_ends"
        ),
    ),
    Protection(
        name="a training waits for space in place",
        protects="A full or absent store costs no step: the training goes on when there is room.",
        file="training/committer.py",
        code="            except StoreError as error:\n",
        instead="            except ZeroDivisionError as error:\n",
        tests=tests_of(_OUTAGES, "a_training_waits_for_space_in_place_and_says_so"),
    ),
    Protection(
        name="whoever waits for space still leaves when asked",
        protects="A worker can be stopped while its store is away.",
        file="training/committer.py",
        code="                if self._stop_asked():\n                    raise",
        instead="                if False:\n                    raise",
        tests=tests_of(_OUTAGES, "a_training_that_waits_for_space_leaves_when_asked"),
    ),
)
