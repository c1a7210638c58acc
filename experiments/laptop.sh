#!/usr/bin/env bash
# The reference runs of a real model on a laptop: which learning rate (the control alone), then five objectives and
# three seeds.
#   experiments/laptop.sh <folder>          <folder>: written by `python -m aipo.models smollm2 --out <folder>`
#   experiments/laptop.sh <folder> choose   the learning rate alone; look at it, and set it in conf/trainer/laptop.yaml
#
# Hardware: two CPU cores, 5 GiB of memory.
# Estimates: 3.7 h for one job of three rounds by the planner (plan=true on 2026-11-25), whose rates for a laptop are
# assumed and cautious. No job of this size has been measured; docs/laptop.md has a smaller one.
# Expected: nothing. These runs have not been made yet; no number of this scale is claimed anywhere.
set -euo pipefail
cd "$(dirname "$0")/.."
MODEL=${1:?the folder of the model; python -m aipo.models smollm2 --out <folder> writes it}
if [ "${2:-}" = choose ]; then
    python run.py -m scale=laptop model.path="$MODEL" objective=dpo trainer.learning_rate=1e-5,3e-5,1e-4 \
        sweep=laptop_learning_rate
    exit
fi
python run.py -m scale=laptop model.path="$MODEL" objective=dpo,dpo_nll,alpha_dpo,aipo,simpo seed=0,1,2 \
    sweep=laptop_reference
