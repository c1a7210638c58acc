"""What the field calls an objective, where that is not its name here."""

from __future__ import annotations

from collections.abc import Mapping

ALIASES: Mapping[str, str] = {
    "ipo": "identity_po",
    "identity": "identity_po",
    "sigmoid": "dpo",
    "cdpo": "dpo",
    "conservative_dpo": "dpo",
    "rpo": "dpo_nll",
    "dpo_sft": "dpo_nll",
    "sigmoid_norm": "dpo_norm",
    "ln_dpo": "dpo_norm",
    "lc_dpo": "r_dpo",
    "length_regularized_dpo": "r_dpo",
    "robust": "robust_dpo",
    "rdpo": "robust_dpo",
    "slic": "hinge",
    "slic_hf": "hinge",
    "rso": "hinge",
    "exo_pair": "exo",
    "nca_pair": "nca",
    "bco_pair": "bco",
    "kto_pair": "kto",
    "alphadpo": "alpha_dpo_2410",
    "smaug": "dpop",
    "dpo_positive": "dpop",
    "sppo_single": "sppo_pairwise",
    "ldpo": "ld_dpo",
}
"""The other name, lower-case: the name in conf/objective. `rdpo` is robust DPO, as its paper writes rDPO; R-DPO is
`r_dpo`."""

EXPLANATIONS: Mapping[str, str] = {
    "ipo": "the identity objective of Azar et al.; IPO also names iterative training",
    "alphadpo": "arXiv 2410.10148; the AIPO paper's alpha-DPO is alpha_dpo",
    "cdpo": "conservative DPO; set objective.loss.label_smoothing above 0",
    "conservative_dpo": "set objective.loss.label_smoothing above 0, or choose robust_dpo",
    "rdpo": "robust DPO; length-regularised DPO, R-DPO, is r_dpo",
    "rpo": "DPO with the chosen completion's NLL",
}
"""What a message about an alias adds, where there is something to say."""
