#!/usr/bin/env bash
# The alignment tax: what training cost elsewhere, by lm-evaluation-harness, on the base models and last policies of a sweep.
#   pip install -e '.[lm_eval]'
#   experiments/alignment_tax.sh results/<sweep>                     tasks of the hub, for language models
#   TASKS=mini_facts experiments/alignment_tax.sh results/<sweep>    our own task, for the miniature: offline
#
# Hardware: what loads the policy; for a 12 B model one GPU of 80 GB.
# Estimates: none. The time is the harness's, and depends on tasks and GPU.
# Expected: nothing. The paper reports no such scores, and no reference run of ours has been made with the hub's tasks.
set -euo pipefail
cd "$(dirname "$0")/.."
SWEEP=${1:?the folder of a sweep, as results/my_sweep}
TASKS=${TASKS:-arc_challenge,gsm8k,hellaswag,mmlu,truthfulqa_mc2,winogrande}
BATCH=${BATCH:-auto}
if [ "$TASKS" = mini_facts ]; then BATCH=16; fi
python -m aipo.command lm-eval "$SWEEP" --tasks "$TASKS" -- --include_path experiments/lm_eval --apply_chat_template \
    --batch_size "$BATCH"
python -m analysis "$SWEEP"
