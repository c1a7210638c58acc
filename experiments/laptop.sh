#!/usr/bin/env bash
# The reference runs of a real model on a laptop: which learning rate (the control alone), then five objectives and
# three seeds.
#   experiments/laptop.sh <folder>          <folder>: written by `python -m aipo.models smollm2 --out <folder>`
#   experiments/laptop.sh <folder> choose   the learning rate alone; look at it, and set it in conf/trainer/laptop.yaml
#
# DTYPE=bfloat16 where the CPU multiplies it (`aipo doctor`): twice as fast.
# Hardware: two CPU cores, 12 GiB of memory: two jobs at once.
# Estimates: in bfloat16 four hours for the fifteen jobs, which took 2 h 10 min and 2 h, two at once, beside other work,
# on a shared 2-core AMD EPYC with AVX512_BF16 (2026-11-30); in float32 eleven by the plan.
# Expected: DPO's answers grow to almost twice the base model's, and SimPO's beyond with less gold (docs/laptop.md).
set -euo pipefail
cd "$(dirname "$0")/.."
MODEL=${1:?the folder of the model; python -m aipo.models smollm2 --out <folder> writes it}
if [ "${2:-}" = choose ]; then
    python run.py -m scale=laptop model.path="$MODEL" model.dtype="${DTYPE:-float32}" objective=dpo trainer.learning_rate=1e-5,3e-5,1e-4 \
        jobs_at_once=2 sweep=laptop_learning_rate
    exit
fi
python run.py -m scale=laptop model.path="$MODEL" model.dtype="${DTYPE:-float32}" objective=dpo,dpo_nll,aipo,alpha_dpo,simpo seed=0,1,2 \
    jobs_at_once=2 sweep=laptop_reference
