"""One row for each objective: numbers derived by hand, and which properties hold for any batch.

The pairs A and B are in `toy_pairs.hand_pairs`. The numbers were computed in float64 or better from the formula beside
them, not with the code under test. Abbreviations: S(x) = 1 / (1 + e^-x), L(x) = -ln S(x), r = log[pi/ref],
h = r_w - r_l, m = r_w/|y_w| - r_l/|y_l|, M = log pi/|y|.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

PROPERTIES = {
    "sums": "the loss does not read token counts",
    "means": "a completion repeated (log-probs and tokens doubled) gives the same loss",
    "log ratios": "the loss depends on log[pi/ref] of each side alone",
    "policy margin": "shifting both of the policy's log-probs by the same amount changes nothing",
    "pulls": "the loss never rises with log pi(y_w) and never falls with log pi(y_l)",
    "logistic": "without its NLL term and target margin the loss is -log sigmoid(chosen reward - rejected reward), and "
    "sides that are swapped swap their rewards",
    "detached": "a statistic of the batch is treated as a constant in the gradient",
}


@dataclass(frozen=True)
class Row:
    """An objective at some coefficients on the pairs A and B."""

    name: str
    loss: tuple[float, float]
    chosen: tuple[float, float]
    """The chosen reward of A and of B; so is `rejected`."""
    rejected: tuple[float, float]
    coefficients: Mapping[str, float] = field(default_factory=dict)
    """At these no part of the loss is saturated: the gradient is checked there."""
    holds: tuple[str, ...] = ()
    """Keys of PROPERTIES; named in one row of an objective is enough."""

    def __post_init__(self) -> None:
        assert set(self.holds) <= set(PROPERTIES), f"{self.name}: unknown property in {self.holds}"


BETA = {"beta": 0.5}
DPO = {"chosen": (0.5, -1.0), "rejected": (-0.25, 0.5)}  # beta r_w and beta r_l

ROWS = [
    # L(0.75), L(-1.5)
    Row("dpo", (0.38687100611489994, 1.7014132779827524), **DPO, coefficients=BETA,
        holds=("sums", "log ratios", "policy margin", "pulls", "logistic")),
    # 0.9 L(0.75) + 0.1 L(-0.75); the same at -1.5
    Row("dpo", (0.46187100611489994, 1.5514132779827524), **DPO, coefficients=BETA | {"label_smoothing": 0.1}),
    # A's chosen side has gained, so L(0.75); B's has lost 2 nats: L(0.5 (-3 - 3 * 2)), reward 0.5 (-2 - 3 * 2)
    Row("dpop", (0.38687100611489994, 4.5110477448485938), (0.5, -4.0), (-0.25, 0.5), BETA | {"drop_weight": 3.0},
        holds=("sums", "log ratios", "pulls")),
    # [0.9 L(0.75) - 0.1 L(-0.75)] / 0.8
    Row("robust_dpo", (0.29312100611489994, 1.8889132779827524), **DPO, coefficients=BETA | {"label_smoothing": 0.1},
        holds=("sums", "log ratios", "policy margin", "pulls")),
    # 1 - 0.75; 1 + 1.5
    Row("hinge", (0.25, 2.5), **DPO, coefficients=BETA, holds=("sums", "log ratios", "policy margin", "pulls")),
    # m = 1/5 + 0.5/8 = 0.2625, -2/10 - 1/4 = -0.45; (m - 1)^2
    Row("identity_po", (0.54390625, 2.1025), (0.1, -0.1), (-0.03125, 0.125), BETA, holds=("means", "log ratios")),
    # q = S(0.75): q ln(q / 0.9) + (1 - q) ln((1 - q) / 0.1)
    Row("exo", (0.18278998102927435, 1.426703684860999), **DPO, coefficients=BETA | {"label_smoothing": 0.1},
        holds=("sums", "log ratios", "policy margin")),
    # w = S(0.75 / 0.25): (1 - w) L(0.75) + w e^-0.75
    Row("discopop", (0.46831185178947784, 1.7082878522887613), **DPO, coefficients=BETA | {"tau": 0.25},
        holds=("sums", "log ratios", "policy margin")),
    # L(0.5 (2 - 1.1 * 0.5)), L(0.5 (-5 + 1.1 * 2)); rewards 0.5 (-10 + 1.1 * 11), 0.5 (-20 + 1.1 * 18), ...
    Row("alpha_dpo", (0.39495983306522658, 1.6204174099184509), (1.05, -0.1), (0.325, 1.3), BETA | {"alpha": 0.1},
        holds=("sums", "policy margin", "pulls", "logistic")),
    # the same + 0.2 * 10/5, + 0.2 * 20/10
    Row("aipo", (0.79495983306522658, 2.0204174099184509), (1.05, -0.1), (0.325, 1.3),
        BETA | {"alpha": 0.1, "nll_weight": 0.2}, holds=("pulls", "logistic")),
    # L(0.75) + 0.2 * 2, L(-1.5) + 0.2 * 2
    Row("dpo_nll", (0.78687100611489994, 2.1014132779827524), **DPO, coefficients=BETA | {"nll_weight": 0.2},
        holds=("pulls", "logistic")),
    # L(0.75 + 0.1 (5 - 8)), L(-1.5 + 0.1 (10 - 4)); rewards + 0.1 per token
    Row("r_dpo", (0.49324894599745487, 1.2411538747320878), (1.0, 0.0), (0.55, 0.9), BETA | {"length_weight": 0.1},
        holds=("log ratios", "policy margin", "pulls", "logistic")),
    Row("ilr_dpo", (0.49324894599745487, 1.2411538747320878), (1.0, 0.0), (0.55, 0.9), BETA | {"length_weight": 0.1},
        holds=("log ratios", "policy margin", "pulls", "logistic")),
    # tails: A rejected -5 and -5.5, B chosen -13 and -10. h = 1 - (-1 + 0.25 * 0.5) = 1.875, (1 - 0.25 * 3) - 1 = -0.75
    Row("ld_dpo", (0.33045820760222063, 0.89812326413984004), (0.5, 0.125), (-0.4375, 0.5),
        BETA | {"tail_weight": 0.25}, holds=("sums", "log ratios", "pulls", "logistic")),
    # samples: r' = 1, -1 and -2, 1. L(0.5 * 2), L(0.5 * -3)
    Row("sampo", (0.31326168751822283, 1.7014132779827524), (0.5, -1.0), (-0.5, 0.5), BETA,
        holds=("sums", "log ratios", "pulls", "logistic")),
    # w = e^-0.5 and, capped, 1: e^-0.5 L(0.75), L(-1.5)
    Row("wpo", (0.2346491265625605, 1.7014132779827524), **DPO, coefficients=BETA,
        holds=("sums", "log ratios", "policy margin", "pulls")),
    # L(2 * 0.2625), L(2 * -0.45)
    Row("dpo_norm", (0.46471175467299344, 1.2411538747320878), (0.4, -0.4), (-0.125, 0.5), {"beta": 2.0},
        holds=("means", "log ratios", "pulls", "logistic")),
    # M: A -2, -1.5; B -2, -3.75. L(2 * -0.5 - 0.5), L(2 * 1.75 - 0.5)
    Row("simpo", (1.7014132779827524, 0.048587351573742059), (-4.0, -4.0), (-3.0, -7.5), {"beta": 2.0, "margin": 0.5},
        holds=("means", "pulls", "logistic")),
    # e^-1.5 - e^-2, e^-3.75 - e^-2
    Row("simper", (0.087794876911817137, -0.11181753738060358), (0.13533528323661269, 0.13533528323661269),
        (0.22313016014842983, 0.023517745856009108), holds=("means", "pulls")),
    # L(0.5 * 2) + 2, L(0.5 * -5) + 2
    Row("cpo", (2.3132616875182228, 4.5788897342925496), (-5.0, -10.0), (-6.0, -7.5), BETA | {"nll_weight": 1.0},
        holds=("pulls", "logistic")),
    # simpo + 0.05 * 2
    Row("cpo_simpo", (1.8014132779827524, 0.14858735157374206), (-4.0, -4.0), (-3.0, -7.5),
        {"beta": 2.0, "margin": 0.5, "nll_weight": 0.05}, holds=("means", "pulls", "logistic")),
    # o(a) = a - ln(1 - e^a): 2 + 0.1 L(o(-2) - o(-1.5)), 2 + 0.1 L(o(-2) - o(-3.75))
    Row("orpo", (2.1042057807927134, 2.0143125835108018), (-1.8545865421311409, -1.8545865421311409),
        (-1.247517541074546, -3.7262012982498469), {"odds_weight": 0.1}, holds=("means", "pulls")),
    # L(0.5) + L(-0.5)/2 + L(0.25)/2; L(-1) + L(1)/2 + L(-0.5)/2
    Row("nca", (1.2490851862095818, 1.9569310233673876), **DPO, coefficients=BETA, holds=("sums", "log ratios")),
    # (1 - 1)^2 + (-0.5 + 1)^2, (-2 - 1)^2 + (1 + 1)^2
    Row("sppo_hard", (0.25, 13.0), **DPO, coefficients=BETA, holds=("sums", "log ratios")),
    # targets 2 * 0.3 and 2 * 0.1: (1 - 0.6)^2 + (-0.5 + 0.6)^2, (-2 - 0.2)^2 + (1 + 0.2)^2
    Row("sppo_pairwise", (0.17, 6.28), **DPO, coefficients=BETA, holds=("sums", "log ratios")),
    # targets 2 (0.7 - 0.5), 2 (0.2 - 0.5); 2 (0.6 - 0.5), 2 (0.45 - 0.5): 0.6^2 + 0.1^2, 2.2^2 + 1.1^2
    Row("sppo", (0.37, 6.05), **DPO, coefficients=BETA, holds=("sums", "log ratios")),
    # 1 - S(0.5) + S(-0.25), 1 - S(-1) + S(0.5)
    Row("apo_zero", (0.81536416791234733, 1.3535179098318594), **DPO, coefficients=BETA,
        holds=("sums", "log ratios", "pulls")),
    # S(0.5) + 1 - S(0.75), S(-1) + 1 - S(-1.5)
    Row("apo_down", (0.94328063202646159, 1.0865158975636388), **DPO, coefficients=BETA, holds=("sums", "log ratios")),
    # z_w = max(0, (1 - 2)/2) = 0, z_l = (-0.5 + 1)/2 = 0.25. [1 - S(0.375)]/2 + [1 - S(0.25)]/2, ... -1.125, -0.5
    Row("kto", (0.42257844958006607, 0.68868715903474143), **DPO, coefficients=BETA,
        holds=("sums", "log ratios", "pulls", "detached")),
    # d = [(0.5 - 1)/2 + (-0.25 + 0.5)/2]/2 = -0.0625. L(0.5 - d) + L(d + 0.25), L(-1 - d) + L(d - 0.5)
    Row("bco", (1.0547225711507197, 2.2813954891973456), **DPO, coefficients=BETA,
        holds=("sums", "log ratios", "pulls", "detached")),
    # ranks of policy and reference margins agree (B before A), so each meets its own: DPO
    Row("aot", (0.38687100611489994, 1.7014132779827524), **DPO, coefficients=BETA,
        holds=("sums", "policy margin", "pulls")),
    # m = 0.2625, -0.45: z = +-1/sqrt 2 (n - 1). L(2 * -0.5 - 0.5 - 0.2 z), L(2 * 1.75 - 0.5 - 0.2 z)
    Row("alpha_dpo_2410", (1.818482872742887, 0.042313350370583098), (-4.0, -4.0), (-3.0, -7.5),
        {"beta": 2.0, "margin": 0.5, "spread_weight": 0.1}, holds=("means", "pulls", "detached")),
]  # fmt: skip


def rows_of(name: str) -> list[Row]:
    """The rows of one objective; the test fails, and says what to write, where there is none."""
    found = [row for row in ROWS if row.name == name]
    if not found:
        pytest.fail(
            f"{name}: not derived by hand yet. Add Row({name!r}, loss=(A, B), chosen=(A, B), rejected=(A, B), "
            "coefficients={...}, holds=(...)) to ROWS in tests/objectives/by_hand.py; the pairs A and B and their "
            "round numbers are in toy_pairs.hand_pairs",
            pytrace=False,
        )
    return found


def holding(claim: str) -> list[str]:
    """The objectives for which a property is claimed, in the order of ROWS."""
    return list(dict.fromkeys(row.name for row in ROWS if claim in row.holds))
