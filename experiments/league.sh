#!/usr/bin/env bash
# The league: which objective is best under an equal tuning budget? Protocol: docs/league.md.
#   experiments/league.sh                         three rounds of the miniature
#   SEEDS=0,1,2 experiments/league.sh             fewer fresh seeds
#   experiments/league.sh iteration.iterations=15 iteration.prompts=384
#
# Hardware: two CPU cores.
# Estimates: 54 minutes on one core of a shared AMD EPYC (AVX2), measured on 2026-11-29: 186 tuning jobs and 204 others.
# Expected: the placebo no different from DPO, the two arms that are wrong on purpose worse. At this size they were not
# found worse: docs/league.md.
set -euo pipefail
cd "$(dirname "$0")/.."
SEEDS=${SEEDS:-0,1,2,3,4,5}
python run.py -m +experiment=league sweep=league_tuning "$@"
commands=$(python -m analysis.league results/league_tuning --seeds "$SEEDS")
while read -r line; do
    read -ra arm <<<"$line"
    python run.py -m +experiment=league "${arm[@]}" sweep=league "$@"
done <<<"$commands"
python -m analysis.league results/league_tuning results/league
