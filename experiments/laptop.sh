#!/usr/bin/env bash
# The reference runs of a real model on a laptop: which learning rate (the control alone), then five objectives and
# three seeds.
#   experiments/laptop.sh <folder>          <folder>: written by `python -m aipo.models smollm2 --out <folder>`
#   experiments/laptop.sh <folder> choose   the learning rate alone; look at it, and set it in conf/trainer/laptop.yaml
#
# Hardware: two CPU cores, 12 GiB of memory: two jobs at once.
# Estimates: about nine hours for the fifteen jobs, by the one pair that was run (results/laptop_pair: 71 minutes for
# two jobs on a shared 2-core AMD EPYC, 2026-11-29).
# Expected: nothing. These runs have not been made yet; docs/laptop.md shows the pair, one seed.
set -euo pipefail
cd "$(dirname "$0")/.."
MODEL=${1:?the folder of the model; python -m aipo.models smollm2 --out <folder> writes it}
if [ "${2:-}" = choose ]; then
    python run.py -m scale=laptop model.path="$MODEL" objective=dpo trainer.learning_rate=1e-5,3e-5,1e-4 \
        jobs_at_once=2 sweep=laptop_learning_rate
    exit
fi
python run.py -m scale=laptop model.path="$MODEL" objective=dpo,dpo_nll,alpha_dpo,aipo,simpo seed=0,1,2 \
    jobs_at_once=2 sweep=laptop_reference
