"""Options are checked by what their fields declare."""

import math
from dataclasses import dataclass

import pytest

from corpusmill.corpus.errors import UsageError
from corpusmill.corpus.options import check, option


@dataclass(frozen=True)
class Some:
    needed: int = option("needed", least=1)
    count: int | None = option("count", None, least=0, most=1000)
    rate: float = option("rate", 0.5, name="the-rate", least=0)
    kind: str = option("kind", "a", choices=("a", "b"))
    other: str | None = option("other", None, choices=("c",))
    plain: int = 0


@pytest.mark.parametrize(
    "values", [{}, {"count": 0}, {"count": 1000}, {"rate": 0}, {"other": "c"}, {"plain": -1}]
)
def test_what_is_accepted(values):
    check(Some(1, **values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"needed": 0}, "--needed 0 is not a number of at least 1"),
        ({"count": -1}, "--count -1 is not a number of at least 0"),
        ({"count": 1001}, "--count 1001 is more than 1,000, the most"),
        ({"rate": math.nan}, "--the-rate nan is not a number of at least 0"),
        ({"rate": math.inf}, "--the-rate inf is not a number of at least 0"),
        ({"kind": "c"}, "--kind 'c': there are a, b"),
        ({"kind": None}, "--kind None: there are a, b"),
        ({"other": "a"}, "--other 'a': there are c"),
    ],
)
def test_what_is_refused(values, message):
    with pytest.raises(UsageError) as caught:
        check(Some(**{"needed": 1} | values))
    assert str(caught.value) == message
