"""Which failures are retried, after how long, and when to give up."""

from __future__ import annotations

import grpc
import pytest

from aligner_client import ResourceExhaustedError, RetryPolicy, UnavailableError
from aligner_client.errors import AlignerClientError

LOW, HIGH = (lambda: 0.0), (lambda: 1.0)


def unavailable(retry_after: float | None = None) -> AlignerClientError:
    return UnavailableError(grpc.StatusCode.UNAVAILABLE, "gone", retry_after=retry_after, retryable=True)


@pytest.mark.parametrize(("random", "expected"), [(LOW, [0.5, 1.0, 2.0, 2.5]), (HIGH, [1.0, 2.0, 4.0, 5.0])])
def test_the_wait_doubles_up_to_a_maximum_with_up_to_half_of_it_random(random, expected):
    retry = RetryPolicy(attempts=5, initial=1.0, maximum=5.0, random=random).begin(None)
    assert [retry.delay(unavailable()) for _ in range(5)] == [*expected, None]


def test_a_single_attempt_is_never_repeated():
    assert RetryPolicy(attempts=1).begin(None).delay(unavailable()) is None


def test_the_server_is_never_called_earlier_than_it_asked():
    retry = RetryPolicy(initial=1.0, random=LOW).begin(None)
    assert retry.delay(unavailable(retry_after=7.0)) == 7.0
    retry = RetryPolicy(initial=1.0, random=HIGH).begin(None)
    assert retry.delay(unavailable(retry_after=7.0)) == 8.0


def test_a_server_that_asks_for_a_wait_over_the_maximum_is_not_retried():
    assert RetryPolicy(max_retry_after=60).begin(None).delay(unavailable(retry_after=61)) is None


def test_no_wait_reaches_beyond_the_deadline():
    assert RetryPolicy(initial=100, maximum=100).begin(50).delay(unavailable()) is None
    assert RetryPolicy(initial=100, maximum=100).begin(500).delay(unavailable()) is not None


def test_an_error_that_is_not_retryable_is_not_retried():
    full = ResourceExhaustedError(grpc.StatusCode.RESOURCE_EXHAUSTED, "too long")
    assert RetryPolicy().begin(None).delay(full) is None
