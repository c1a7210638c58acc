"""How estimates and contrasts are written: value, interval and p in a cell, and their exact columns in a CSV."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from aipo.stats import Estimate
from analysis.contrasts import Contrast
from analysis.table import number

SMALLEST_P = 1e-4
"""Below it a p-value's digits mean nothing."""


def is_ratio(contrast: Contrast) -> bool:
    """Whether a contrast is of logarithms, and shown as a ratio."""
    return contrast.quantity.startswith("log_")


def shown(contrast: Contrast, digits: int, words: str = "") -> str:
    """Value and interval, where there is one, as they are shown, `words` between them: ratios from their logarithms."""
    found = contrast.estimate
    if is_ratio(contrast):
        value, low, high = (math.exp(x) for x in (found.value, found.low, found.high))
        found, digits = replace(found, value=value, low=low, high=high), 2
    return with_interval(found, digits, words)


def cell(contrast: Contrast | None, digits: int) -> str:
    """A contrast as people read it; a dash for none."""
    return "–" if contrast is None else f"{shown(contrast, digits)}{told_p(contrast.p_holm)}"


def told_p(p: float) -> str:
    """A p-value as it stands behind a number; nothing where there is none."""
    return "" if math.isnan(p) else f"; p {'' if p < SMALLEST_P else '= '}{shown_p(p)}"


def shown_p(p: float) -> str:
    """A p-value to one digit, or to as many as tell on which side of 0.05 it is: two, and four beside it."""
    if p < SMALLEST_P:
        return "< 0.0001"
    return next((text for digits in (1, 2) if (text := f"{p:.{digits}g}") != "0.05"), f"{p:.4g}")


def with_interval(found: Estimate, digits: int, words: str = "") -> str:
    """Value and interval, where there is one, `words` between them."""
    value = f"{number(found.value, digits)}{words}"
    return value if math.isnan(found.low) else f"{value} ({number(found.low, digits)} to {number(found.high, digits)})"


def counted(found: Sequence[Estimate]) -> str:
    """What the intervals of a table are over: the fewest seeds and the most, where not all have the same."""
    counts = [one.n_replicates for one in found]
    least, most, asked = min(counts), max(counts), min(one.n_questions for one in found)
    questions = f"{asked} questions" if asked else ""
    if most == 1:
        return f"{questions} alone, for there is one seed" if asked else "nothing: one seed, and no single questions"
    seeds = f"{most} seeds" if least == most else f"{least} to {most} seeds (n_seeds in the CSV)"
    return " and ".join(filter(None, (seeds, questions))) + "; of one seed over questions alone" * (least == 1 < asked)


def corrected(found: Sequence[Contrast]) -> str:
    """For how many comparisons a p of these was corrected, to stand behind other words; nothing where none is tested.

    One seed gives no p, and is no comparison of its column.
    """
    sizes = Counter((one.horizon, one.quantity) for one in found if not math.isnan(one.p_holm)).values()
    if not sizes:
        return ""
    n = str(max(sizes)) if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
    return f"; p corrected by Holm for the {n} comparison{'s' * (max(sizes) > 1)} of a column"


def exact(contrast: Contrast) -> dict[str, object]:
    """A contrast's columns in a CSV."""
    key = contrast.quantity
    row = columns(key, contrast.estimate) | {f"{key}_se_questions": contrast.estimate.error_questions}
    row |= {f"{key}_p_holm": contrast.p_holm, f"{key}_p_sign_flip": contrast.p_sign_flip}
    row |= {f"{key}_detectable": contrast.estimate.detectable}
    if contrast.where is not None:
        row |= {f"{key}_from": contrast.where.low, f"{key}_to": contrast.where.high}
    if contrast.new_base_models is not None:
        row |= columns(f"{key}_new_base_models", contrast.new_base_models)
    return row | {"n_seeds": contrast.estimate.n_replicates, "n_questions": contrast.estimate.n_questions}


def columns(key: str, found: Estimate | None) -> dict[str, object]:
    """An estimate's columns in a CSV, NaN for none."""
    if found is None:
        return dict.fromkeys((key, f"{key}_low", f"{key}_high", f"{key}_se", f"{key}_p"), math.nan)
    return {
        key: found.value,
        f"{key}_low": found.low,
        f"{key}_high": found.high,
        f"{key}_se": found.standard_error,
        f"{key}_p": found.p,
    }
