"""A short run of the fuzzer; a long one: `python -m tests.untrusted.fuzz --seconds 3600`."""

from tests.untrusted.fuzz import fuzz


def test_damaged_files_and_odd_options_end_in_one_line():
    assert fuzz(first=0, seconds=300, cases=35) == {}
