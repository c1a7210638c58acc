#!/usr/bin/env bash
# The table of training recipes: DPO, one round, on four ways to make prompts and responses.
#   experiments/recipes.sh                     the paper's models and data
#   SCALE=miniature experiments/recipes.sh     the same four jobs in the miniature, about three minutes on two CPU cores
#
# Hardware: 8 GPUs of 80 GB for SCALE=paper, vLLM installed for sampling, an OpenAI key for judging.
# Estimates (SCALE=paper): 4.3 h, 35 h of device time, 162 GiB of trained models, 9,825 judge requests for about $251.
# Estimates are the planner's (plan=true on 2026-11-30, lengths and rates assumed in conf/workload and conf/hardware), not measured.
#
# Expected (arXiv 2409.08845, table of training recipes, Mistral-7B-Instruct-v0.2; also analysis/paper/recipes.csv):
#   prompts  responses             MT-Bench  AE2 LC %  AE2 WR %  AE2 chars  Arena-Hard %  tokens
#   UF       UF                    6.3       20.4      16.5      1664       14.4          535
#   UF       PairRM(UF)            6.2       20.8      16.4      1623       13.6          512
#   UF       PairRM(Gen(UF))       6.5       23.7      25.2      2198       17.6          649
#   SI(UF)   PairRM(Gen(SI(UF)))   6.4       26.0      28.2      2130       19.6          615
# MT-Bench there is judged by GPT-4 Turbo, as here by default.
set -euo pipefail
cd "$(dirname "$0")/.."
SCALE=${SCALE:-paper}
python run.py -m +experiment=recipes scale="$SCALE" sweep="recipes_$SCALE" "$@"
