"""In which order the endpoints of a pool are asked, by what is known of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...clock import Clock
from ...oci.errors import Denied, Unknown
from .endpoint_state import EndpointState, Priority
from .question import Asked, Question
from .verdict import Errors, verdict

# One ask for content in so many seconds goes first to an endpoint that was not measured for long.
_EXPLORE_EVERY = 30.0
_MEASURED_FOR = 300.0


class Order:
    """Endpoints trusted with tags are asked for their word in the configuration's order, all
    others for content by what they have shown: manifests by latency, blobs by the speed that one
    more may expect. Endpoints that failed lately come last; those whose breaker is open not at
    all."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._explore_at = clock.monotonic() + _EXPLORE_EVERY

    def of(
        self, question: Question, endpoints: Sequence[EndpointState]
    ) -> tuple[list[EndpointState], list[EndpointState]]:
        """The endpoints to ask, in order, and those that are not to be asked now."""
        if len(endpoints) == 1:
            refuses = endpoints[0].priority(question) is Priority.NEVER
            return ([], list(endpoints)) if refuses else (list(endpoints), [])
        asked, repository = question.asked, question.repository
        priorities = {one: one.priority(question) for one in endpoints}
        candidates = [one for one in endpoints if priorities[one] is not Priority.NEVER]
        refused = [one for one in endpoints if priorities[one] is Priority.NEVER]
        if asked.is_content:
            explored = self._to_explore(question, candidates, priorities)
            if explored is not None:
                priorities[explored] = Priority.TRIAL
        cost = _cost(asked, candidates)
        candidates.sort(  # stable: equals stay in the configuration's order
            key=lambda one: (
                priorities[one],
                one.steps_back(repository),
                not one.slots.free(asked),
                cost(one),
            )
        )
        return candidates, refused

    def _to_explore(
        self,
        question: Question,
        candidates: Sequence[EndpointState],
        priorities: dict[EndpointState, Priority],
    ) -> EndpointState | None:
        """The endpoint whose latency was measured longest ago, when it is time to measure it."""
        asked, now = question.asked, self._clock.monotonic()
        if now < self._explore_at or len(candidates) < 2:
            return None
        usual = [
            one
            for one in candidates
            if priorities[one] is Priority.USUAL and not one.steps_back(question.repository)
        ]
        oldest = min(usual, key=lambda one: one.latency[asked].measured_at, default=None)
        if oldest is None or now - oldest.latency[asked].measured_at < _MEASURED_FOR:
            return None
        self._explore_at = now + _EXPLORE_EVERY
        return oldest


def _cost(asked: Asked, endpoints: Sequence[EndpointState]) -> Callable[[EndpointState], float]:
    """The lower, the sooner asked. An endpoint that was never measured counts as the best that
    was."""
    if not asked.is_content:
        return lambda endpoint: 0.0
    if asked is Asked.MANIFEST:
        known = [mean for one in endpoints if (mean := one.latency[asked].mean) is not None]
        least = min(known, default=0.0)

        def latency(endpoint: EndpointState) -> float:
            mean = endpoint.latency[asked].mean
            return least if mean is None else mean

        return latency
    most = max((one.speed.mean or 0.0 for one in endpoints), default=0.0) or 1.0

    def seconds_a_byte(endpoint: EndpointState) -> float:
        return (endpoint.slots.blobs_held + 1) / (endpoint.speed.mean or most)

    return seconds_a_byte


def to_try_early(
    question: Question, refused: Sequence[EndpointState], errors: Errors
) -> list[EndpointState]:
    """The endpoints whose breaker is open but which may be probed early, when all others have
    failed with `errors`: their pauses have grown for the others' sake, and one probe in a while
    finds out soon that they are back."""
    told = [(one, one.refusal(question)) for one in refused]
    if not told or isinstance(verdict([*errors, *told]), Unknown | Denied):
        return []
    return [one for one in refused if one.may_try_early(question)]
