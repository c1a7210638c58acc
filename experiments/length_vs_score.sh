#!/usr/bin/env bash
# The figure of score against answer length: five objectives over 15 rounds.
#   experiments/length_vs_score.sh                            the paper's model (Mistral-Nemo) and data
#   experiments/length_vs_score.sh hydra/launcher=slurm       the same on a cluster; see docs/cluster.md
#   SCALE=miniature experiments/length_vs_score.sh seed=0,1,2 about half an hour on two CPU cores
#
# Hardware: 8 GPUs of 80 GB for SCALE=paper, vLLM installed for sampling, an OpenAI key for judging.
# Estimates (SCALE=paper): 69 h one job after the other, 548 h of device time, 5.01 TiB of trained models, 149,340 judge
# requests for about $3,808.
# Estimates are the planner's (plan=true on 2026-11-30, lengths and rates assumed in conf/workload and conf/hardware), not measured.
#
# Expected (arXiv 2409.08845, the figure's points as read off the picture: analysis/paper/length_vs_score.csv): at equal length
# AIPO > alpha-DPO > DPO+NLL > DPO > SimPO, on Arena-Hard and on AlpacaEval 2. `python -m analysis paper` draws that figure
# and fits its lines again.
set -euo pipefail
cd "$(dirname "$0")/.."
SCALE=${SCALE:-paper}
python run.py -m +experiment=length_vs_score scale="$SCALE" sweep="length_vs_score_$SCALE" "$@"
