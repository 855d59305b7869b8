"""Which sweep or run a user means by an id that is shortened to any part of it that is unambiguous.

Matching is pure. Who asks Temporal (`resolve_sweep`, `resolve_run`, `resolve_target`) spends one question on an exact
id, however many sweeps there are, and a list of all sweeps on anything else.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from bertpar.answers import query, unknown_sweep
from bertpar.errors import NotFoundError
from bertpar.listing import SweepChain, SweepEntry, describe_chains, list_chains
from bertpar.states import SweepStatus
from bertpar.workflows.coordinator import CoordinatorWorkflow

LAST = "last"
"""Stands for the newest sweep. No id is like it: an id ends in date, time and four hexadecimal digits."""

_MAX_SHOWN = 8
_MAX_NEAR = 3

# --- pure ---------------------------------------------------------------------------------------------------


def matching(text: str, sweep_ids: Sequence[str]) -> list[str]:
    """Return the ids that `text` may stand for, in their order.

    That is the id itself; else those that begin with it, or of which a part behind a `-` does: of
    `movie_reviews-1123-194501-4f2a` that is `movie`, `1123-19`, `4f2a`. `last` is the first of the ids.
    """
    if text in sweep_ids:
        return [text]
    if text == LAST:
        return list(sweep_ids[:1])
    return [i for i in sweep_ids if i.startswith(text) or f"-{text}" in i] if text else []


def near(text: str, sweep_ids: Sequence[str]) -> list[str]:
    """Return the few ids that were perhaps meant by `text`, the likeliest first: those of which it is nearly a part."""
    by_form: dict[str, list[str]] = {}
    for sweep_id in sweep_ids:
        for form in {sweep_id, sweep_id.rpartition("-")[2], sweep_id.partition("-")[0]}:
            by_form.setdefault(form, []).append(sweep_id)
    forms = difflib.get_close_matches(text, by_form, n=_MAX_NEAR)
    return list(dict.fromkeys(sweep_id for form in forms for sweep_id in by_form[form]))[:_MAX_NEAR]


def choose(text: str, sweep_ids: Sequence[str]) -> str:
    """Return the one id that `text` stands for, among ids of which nothing but the name is known.

    Raises:
        NotFoundError: it stands for none, or for several; the message lists the candidates.
    """
    found = matching(text, sweep_ids)
    if len(found) == 1:
        return found[0]
    if found:
        raise NotFoundError(f"{text} is ambiguous; it stands for: {', '.join(found[:_MAX_SHOWN])}")
    likely = near(text, sweep_ids) or sweep_ids[:_MAX_NEAR]
    raise NotFoundError(f"{text} does not exist; there are: {', '.join(likely) or 'no sweeps'}")


def split_step(text: str) -> tuple[str, int | None]:
    """Return the parts of RUN[@STEP].

    Raises:
        NotFoundError: what follows @ is no step.
    """
    run, at, step = text.partition("@")
    if at and not step.isdecimal():
        raise NotFoundError(f"{text}: what follows @ must be a step, for example {run}@8")
    return run, int(step) if at else None


def split_run(text: str) -> tuple[str, int] | None:
    """Return sweep and number where `text` has a run's form, SWEEP/INDEX."""
    sweep, _, index = text.rpartition("/")
    return (sweep, int(index)) if sweep and index.isascii() and index.isdecimal() else None


def describe_candidates(entries: Sequence[SweepEntry], num_more: int = 0) -> str:
    """Return one indented line a sweep: its id, how it is, when it was started."""
    width = max((len(entry.sweep_id) for entry in entries), default=0)
    lines = [
        f"  {e.sweep_id:<{width}}  {e.status:<9}  started {e.started_at.astimezone():%Y-%m-%d %H:%M:%S}"
        for e in entries
    ]
    return "\n".join([*lines, *([f"  and {num_more} more: bertpar ls"] if num_more > 0 else [])])


# --- asking -------------------------------------------------------------------------------------------------


async def resolve_sweep(client: Client, text: str) -> str:
    """Return the id of the sweep that `text` stands for: its id, an unambiguous part of it, or `last`.

    Raises:
        NotFoundError: it stands for none, or for several; the message lists the candidates.
        RPCError: the server does not answer.
    """
    kind = await _kind_of_workflow(client, text)
    if kind == CoordinatorWorkflow.__name__:
        return text
    if kind is not None:
        raise NotFoundError(f"{text} is a workflow of another kind; `bertpar ls` lists the sweeps")
    if split_run(text) is not None:
        raise unknown_sweep(text)
    return await _find_sweep(client, text)


async def resolve_run(client: Client, text: str) -> str:
    """Return the id of the run that `text` stands for: SWEEP/INDEX, or the sweep alone where it has a single run.

    SWEEP may be shortened as for `resolve_sweep`. Whether the sweep has a run of that number is for others to say.

    Raises:
        NotFoundError, RPCError: as `resolve_sweep`; or the sweep has several runs, of which none is named.
    """
    if (run := split_run(text)) is not None:
        return f"{await resolve_sweep(client, run[0])}/{run[1]}"
    sweep_id = await resolve_sweep(client, text)
    sweep: SweepStatus = await query(client, sweep_id, CoordinatorWorkflow.status)
    indices = [state.run.index for state in sweep.runs]
    if len(indices) == 1:
        return f"{sweep_id}/{indices[0]}"
    if not indices:
        raise NotFoundError(f"{text} is a sweep that has no run yet")
    raise NotFoundError(
        f"{text} is a sweep of {len(indices)} runs: name one of them, {text}/{indices[0]} to {text}/{indices[-1]}"
    )


async def resolve_target(client: Client, text: str) -> str:
    """Return the id of the run (where `text` has a run's form) or of the sweep that `text` stands for; see there."""
    return await (resolve_sweep(client, text) if split_run(text) is None else resolve_run(client, text))


async def _kind_of_workflow(client: Client, workflow_id: str) -> str | None:
    """Return the type of the workflow with exactly this id; None if there is none."""
    if workflow_id in ("", LAST):
        return None
    try:
        return (await client.get_workflow_handle(workflow_id).describe()).workflow_type
    except RPCError as error:
        # INVALID_ARGUMENT: a text that can be no id, being too long
        if error.status not in (RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT):
            raise
        return None


async def _find_sweep(client: Client, text: str) -> str:
    chains = await list_chains(client)
    by_id = {chain.sweep_id: chain for chain in chains}
    found = matching(text, list(by_id))
    if len(found) == 1:
        return found[0]
    if found:
        candidates = await _candidates(client, [by_id[sweep_id] for sweep_id in found])
        raise NotFoundError(f"{text} is ambiguous; it stands for {len(found)} sweeps:\n{candidates}")
    if not chains:
        raise NotFoundError(f"{text} does not exist; there are no sweeps yet: python train.py -m lr=5e-5,2e-4")
    likely = [by_id[sweep_id] for sweep_id in near(text, list(by_id))]
    told = "Near it" if likely else "The newest"
    candidates = await _candidates(client, likely or chains[:_MAX_NEAR])
    raise NotFoundError(f"{text} does not exist; `bertpar ls` lists the sweeps. {told}:\n{candidates}")


async def _candidates(client: Client, chains: Sequence[SweepChain]) -> str:
    return describe_candidates(await describe_chains(client, chains[:_MAX_SHOWN]), len(chains) - _MAX_SHOWN)
