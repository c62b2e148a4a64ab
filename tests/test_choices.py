"""Lists in headers that are longer than anybody needs."""

import pytest

from service.api import has_etag
from service.assets import content_coding
from service.choices import MOST, choices
from service.page import accepts_html

PADDING = "a," * MOST


def test_members_over_several_lines():
    """The lines of a header are one list."""
    assert choices(["a, b", "c"]) == ["a", " b", "c"]


@pytest.mark.parametrize("header", ["," * 30_000, "a," * 15_000, ";q=1," * 6_000])
def test_the_beginning_of_a_long_list(header):
    """However long a list is, so many of its members are read: each would cost the loop a microsecond or two."""
    assert len(choices([header])) == MOST


def test_what_stands_beyond_is_as_not_sent():
    """What is asked for beyond that is not given; the answer is one that every client takes."""
    assert content_coding([f"{PADDING}br"]) is None
    assert not accepts_html([f"{PADDING}text/html"])
    assert not has_etag(f'{PADDING}"1"', '"1"')
    assert content_coding([f"br,{PADDING}"]) == "br"
    assert accepts_html([f"text/html,{PADDING}"])
    assert has_etag(f'"1",{PADDING}', '"1"')
