"""What each connection is used for: the calls on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from interceptors.calls.call import Call


@dataclass(slots=True)
class Activity:
    """The calls of one connection. `begun` and `accepted` are about the time since `take_activity` was last called."""

    in_flight: list[Call] = field(default_factory=list)
    begun: int = 0
    accepted: bool = False
    """Whether a call on it was authenticated: its upload may be large."""


class CallsInFlight:
    """The calls of each connection, by the peer as gRPC writes it ("ipv4:127.0.0.1:49534")."""

    def __init__(self, *, anonymous: bool = False) -> None:
        """`anonymous`: every call is accepted, as no principal is asked for."""
        self._anonymous = anonymous
        self._of_peer: dict[str, Activity] = {}

    def enter(self, call: Call) -> None:
        """A call begins."""
        activity = self._of_peer.get(call.peer)
        if activity is None:
            activity = self._of_peer[call.peer] = Activity()
        activity.in_flight.append(call)
        activity.begun += 1

    def leave(self, call: Call) -> None:
        """It has ended."""
        activity = self._of_peer[call.peer]
        activity.in_flight.remove(call)
        activity.accepted = activity.accepted or self._is_accepted(call)

    def take_activity(self) -> Mapping[str, Activity]:
        """The connections that have calls in flight, or had any since this was last called."""
        before = self._of_peer
        self._of_peer = {peer: Activity(activity.in_flight) for peer, activity in before.items() if activity.in_flight}
        for activity in before.values():
            activity.accepted = activity.accepted or any(map(self._is_accepted, activity.in_flight))
        return before

    def _is_accepted(self, call: Call) -> bool:
        return self._anonymous or call.principal is not None
