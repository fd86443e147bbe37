"""How much slower or faster than its forecast a machine was seen to write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from selfinstruct_train.planning.hardware import Hardware, asking_seconds
from selfinstruct_train.planning.probe import Call, Probe, Step
from selfinstruct_train.planning.sizes import ModelSize, PromptSize, TextSizes
from selfinstruct_train.planning.workload import Asked

_STEPS: tuple[Step, ...] = ("instructions", "classification", "instances")


class Pace(NamedTuple):
    """What a probe says of the times of a plan; nothing where there was none."""

    factors: Mapping[str, float] = {}
    """Step -> seconds measured for one forecast; the others have that of writing instances."""
    a_request: Mapping[str, float] = {}
    """Step -> seconds of a request to a server."""
    sentence: str = ""
    """For the basis of the times."""

    def of(self, stage: str) -> float:
        """The factor of a stage that asks."""
        return self.factors.get(stage, self.factors.get("instances", 1.0))

    def of_request(self, stage: str) -> float:
        """Seconds of a request of a stage to a server."""
        return self.a_request.get(stage, self.a_request["instances"])


def pace_of(
    probed: Probe,
    texts: TextSizes,
    machine: Hardware,
    shapes: tuple[ModelSize, int],
    slots: int,
    served: bool,
) -> Pace:
    """The pace of a probe.

    Args:
        probed: what it showed.
        texts: which say how much of the prompts is shared.
        machine: by whose rates the same work is forecast.
        shapes: the model's size, and bytes of a weight.
        slots: most rows that are under way together.
        served: whether a server wrote, of whose machine nothing is known.
    """
    shared = {
        "instructions": texts.instructions,
        "classification": texts.classification,
        "instances": texts.input_first,
    }
    calls = {step: [c for c in probed.calls if c.step == step and c.requests] for step in _STEPS}
    written = f"{probed.tokens_per_second:,.0f} tokens/s"
    if served:
        each: dict[str, float] = dict.fromkeys(_STEPS, 0.0)
        each |= {step: _seconds(of) / _requests(of) for step, of in calls.items() if of}
        return Pace({}, each, f"; steps 1 to 3 at the pace of the probe, {written} by the server")
    factors: dict[str, float] = {}
    for step, found in calls.items():
        forecast = sum(_forecast(call, shared[step], machine, shapes, slots) for call in found)
        if forecast:
            factors[step] = _seconds(found) / forecast
    told = ", ".join(f"{step} {factor:.2f}" for step, factor in factors.items())
    return Pace(factors, {}, f"; by the probe, {written}, they are multiplied: {told}")


def _forecast(
    call: Call,
    prompt: PromptSize,
    machine: Hardware,
    shapes: tuple[ModelSize, int],
    slots: int,
) -> float:
    size, weight_bytes = shapes
    work = Asked(
        stage=call.step,
        requests=call.requests,
        prompt_tokens=call.prompt_tokens,
        shared_tokens=min(round((call.requests - 1) * prompt.shared), call.prompt_tokens),
        completion_tokens=call.completion_tokens,
        at_once=min(slots, call.requests),
        longest=0,
    )
    return asking_seconds(work, machine, size, weight_bytes)


def _seconds(calls: Sequence[Call]) -> float:
    return sum(call.seconds for call in calls)


def _requests(calls: Sequence[Call]) -> int:
    return sum(call.requests for call in calls)
