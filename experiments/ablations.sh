#!/usr/bin/env bash
# AIPO with one setting varied at a time, fifteen rounds each. Overrides are passed to every sweep.
#   experiments/ablations.sh
#   ONLY=ablation_alpha experiments/ablations.sh      one of them
#   SCALE=miniature experiments/ablations.sh
#
# Hardware: 8 GPUs of 80 GB for SCALE=paper, vLLM installed for sampling, an OpenAI key for judging.
# Estimates (SCALE=paper): hours one job after the other, device time, judging.
#   ablation_alpha        53 h, 427 h of device time, $3,808 alpha, the extra weight of the reference margin; the paper: 0.07
#   ablation_lambda       53 h, 427 h, $3,808                lambda, the weight of the NLL term; the paper: 0.2
#   ablation_beta         43 h, 343 h, $3,057                beta; the paper: 0.1
#   ablation_candidates   45 h, 358 h, $3,057                N, candidates per prompt; the paper: 5
#   ablation_temperature  33 h, 267 h, $2,305                the candidates' temperature; the paper: 0.4
#   ablation_ranker       16 h, 132 h, $1,553                the ranker; the paper: PairRM
#   ablation_reference    31 h, 247 h, $2,205                the reference policy: the previous one (Algorithm 1), a moving average or the base model
# Estimates are the planner's (plan=true on 2026-11-30, lengths and rates assumed in conf/workload and conf/hardware), not measured.
#
# Expected: the paper prints no such table, so there are no numbers to hold these against. What its argument predicts: larger alpha and
# lambda give shorter answers. In the miniature, results/ shows what was measured.
set -euo pipefail
cd "$(dirname "$0")/.."
SCALE=${SCALE:-paper}
overrides=("$@")
known=()
run() {
    local name=${1#+experiment=}
    known+=("$name")
    if [[ -z ${ONLY:-} || $ONLY == "$name" ]]; then
        python run.py -m "$1" scale="$SCALE" sweep="${name}_$SCALE" "${overrides[@]}"
    fi
}
run +experiment=ablation_alpha
run +experiment=ablation_lambda
run +experiment=ablation_beta
run +experiment=ablation_candidates
run +experiment=ablation_temperature
run +experiment=ablation_ranker
run +experiment=ablation_reference
if [[ -n ${ONLY:-} && " ${known[*]} " != *" $ONLY "* ]]; then
    echo "ONLY=$ONLY: no such ablation; choose from ${known[*]}" >&2
    exit 2
fi
