import pytest
from hypothesis import given
from hypothesis import strategies as st

from defocus_sim.errors import UnitError
from defocus_sim.units import METRES_PER_UNIT, format_bytes, parse_f_number, parse_length_m


@pytest.mark.parametrize(
    ("text", "metres"),
    [
        ("4.48cm", 0.0448),
        ("70mm", 0.07),
        (" 2 m ", 2.0),
        ("5.6um", 5.6e-6),
        ("5.6µm", 5.6e-6),
        (".5m", 0.5),
        ("1e2mm", 0.1),
    ],
)
def test_lengths_are_read_with_their_unit(text, metres):
    assert parse_length_m(text) == pytest.approx(metres, rel=1e-12)


@pytest.mark.parametrize("text", ["4.48", "70", "0mm", "-2m", "mm", "", "2 parsec", "1,5m", "nanm", "1e999m", "f/2"])
def test_what_is_no_length_is_refused_with_the_text_itself(text):
    with pytest.raises(UnitError) as error:
        parse_length_m(text)
    assert repr(text) in str(error.value)


def test_a_bare_number_is_told_the_units():
    with pytest.raises(UnitError, match="um, mm, cm, m, in, ft"):
        parse_length_m("4.48")


@given(number=st.floats(1e-3, 1e4), unit=st.sampled_from(sorted(METRES_PER_UNIT)))
def test_every_unit_is_a_factor(number, unit):
    assert parse_length_m(f"{number!r}{unit}") == number * METRES_PER_UNIT[unit]


def test_f_numbers_are_told_from_lengths():
    assert parse_f_number("f/1.56") == 1.56
    assert parse_f_number("F / 8") == 8
    assert parse_f_number("4.48cm") is None
    with pytest.raises(UnitError, match="f/0"):
        parse_f_number("f/0")


def test_bytes_are_written_in_decimal_units():
    assert [format_bytes(n) for n in (999, 12_340, 2.9e9)] == ["999 B", "12.3 kB", "2.9 GB"]
