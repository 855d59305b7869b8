"""What makes a resumed training the uninterrupted one, bit for bit."""

from __future__ import annotations

from tests.mutations.protection import Protection, tests_of

_RESUME = "training/test_resume.py"
_PLAIN, _VALIDATIONS_BETWEEN = (
    tests_of(_RESUME, f"a_run_killed_after_every_checkpoint_equals_the_uninterrupted_one[{variant}]")
    for variant in ("plain", "validations between")
)
_ROWS = tests_of(_RESUME, "metric_rows_are_the_same_once_each_after_kills")
_SIGTERM, _SIGTERM_BEFORE_VALIDATION = (
    tests_of(_RESUME, f"sigterm_leaves_in_order_after_the_present_step[training-{step}]") for step in (3, 7)
)
_CONTINUITY = "training/test_continuity.py"

RESUMPTION = (
    Protection(
        name="dropout is seeded by the step",
        protects="What dropout draws does not depend on how often the process was killed before.",
        file="training/module.py",
        code="torch.manual_seed(seed_at(step, self.spec.seed, self._ranks.share.rank))",
        instead="pass",
        tests=_PLAIN,
    ),
    Protection(
        name="the examples follow from the step",
        protects="A resumed attempt goes on with the examples that come next, not with the first ones.",
        file="training/batches.py",
        code="        self._done = done\n",
        instead="        self._done = 0\n",
        tests=_PLAIN,
    ),
    Protection(
        name="the order of an epoch follows from seed and epoch",
        protects="Every process finds the same permutation of the examples.",
        file="training/plan.py",
        code="np.random.Generator(np.random.PCG64([seed, epoch]))",
        instead="np.random.default_rng()",
        tests=_PLAIN,
    ),
    Protection(
        name="the learning rate follows from the step",
        protects="The schedule does not begin anew with an attempt.",
        file="training/module.py",
        code="learning_rate = self.learning_rate(step)",
        instead="learning_rate = self.learning_rate(batch_idx + 1)",
        tests=_PLAIN,
    ),
    Protection(
        name="the step is restored",
        protects="All that follows from the step follows from the run's, not from the attempt's.",
        file="training/run.py",
        code="self.started_at = module.step = state.step",
        instead="self.started_at = state.step",
        tests=_PLAIN,
    ),
    Protection(
        name="the optimizer's state is restored",
        protects="AdamW goes on with its moments.",
        file="training/callbacks.py",
        code="trainer.optimizers[0].load_state_dict(self._optimizer_state)",
        instead="pass",
        tests=_PLAIN,
    ),
    Protection(
        name="losses not yet logged are restored",
        protects="A row of train/loss is the mean over its whole window, however many attempts made its steps.",
        file="training/state.py",
        code='window=plain["window"]',
        instead="window=[]",
        tests=_ROWS,
    ),
    Protection(
        name="a checkpoint says the step that its weights have done",
        protects="No step is done twice or left out by a resumption.",
        file="training/callbacks.py",
        code="        state.step = step\n",
        instead="        state.step = step - 1\n",
        tests=_PLAIN,
    ),
    Protection(
        name="no gradient outlives its step",
        protects="At a step's boundary, where checkpoints are made, nothing is accumulated that they would lack.",
        file="training/module.py",
        code="        optimizer.zero_grad()\n",
        instead="",
        tests=_PLAIN,
    ),
    Protection(
        name="whoever is asked to stop leaves at a step's boundary",
        protects="SIGTERM in the midst of a step ends that step first, and its result is kept.",
        file="training/callbacks.py",
        code="            self._stop_asked = True\n",
        instead='            raise PreemptedError("at once")\n',
        tests=_SIGTERM,
    ),
    Protection(
        name="whoever is asked to stop makes a checkpoint first",
        protects="An orderly end costs no step.",
        file="training/callbacks.py",
        code="            self._commit(trainer, module)\n            self._committer.wait()\n",
        instead="            pass\n",
        tests=_SIGTERM,
    ),
    Protection(
        name="a checkpoint is of one step",
        protects="What is written while training goes on is the state of the step at which it was copied.",
        file="training/tensor_file.py",
        code="            self._places[name].copy_(tensor.detach(), non_blocking=tensor.is_cuda)\n",
        instead="            self._places[name].set_(tensor.detach())\n",
        tests=tests_of("training/test_saving.py", "a_checkpoint_holds_the_model_and_the_moments_to_the_bit"),
    ),
    Protection(
        name="no copy is taken of what is still being written",
        protects="Two checkpoints close to each other are those of two steps.",
        file="training/committer.py",
        code="        self.wait()\n        new_rows",
        instead="        new_rows",
        tests=tests_of("training/test_saving.py", "the_next_checkpoint_waits_for_the_one_before_and_says_why"),
    ),
    Protection(
        name="a validation that was left undone is done",
        protects="An attempt that ended between a step and its validation leaves no gap in the metrics.",
        file="training/callbacks.py",
        code="return self.state.step in self._validation_steps and not validated",
        instead="return False",
        tests=_SIGTERM_BEFORE_VALIDATION,
    ),
    Protection(
        name="validations are restored",
        protects="Early stopping and the choice of the best see those of earlier attempts.",
        file="training/state.py",
        code='validations=[Validation(**v) for v in plain["validations"]]',
        instead="validations=[]",
        tests=(*_PLAIN, *_VALIDATIONS_BETWEEN),
    ),
    Protection(
        name="another run's checkpoint is refused",
        protects="No run goes on from the weights of a run with other settings.",
        file="training/continuity.py",
        code="if found := differing_values(self._run, theirs):",
        instead="if found := []:",
        tests=tests_of(_CONTINUITY, "a_checkpoint_of_another_run_is_refused_with_both_values"),
    ),
    Protection(
        name="another kind of machine is refused",
        protects="A processor, library or number of threads with other bits is not used unknowingly.",
        file="training/continuity.py",
        code="        if not found:\n            return\n",
        instead="        return\n",
        tests=tests_of(_CONTINUITY, "another_kind_of_machine_is_refused_unless_allowed_and_then_recorded"),
    ),
    Protection(
        name="threads belong to the kind of machine",
        protects="A sum over another number of threads has other bits, and is refused.",
        file="training/fingerprint.py",
        code='        "threads": str(torch.get_num_threads()),\n',
        instead="",
        tests=tests_of(_CONTINUITY, "another_number_of_threads_is_another_kind_of_machine"),
    ),
)
