#!/usr/bin/env bash
# What docs/results/cheapest.md compares on CIFAR: studies/cheapest.sh STORE DATA [SEED…]
# A second call goes on. Two calls side by side share the work: PART=exits and PART=plain.
set -euo pipefail
store=$1 data=$2 here=$(dirname "$0")
shift 2
study=$here/cheapest-$(basename "$data").yaml
[ $# -gt 0 ] || set -- 101 102 103 104 105 106 107 108

train() {  # SEED NAME=VALUE …
  local sets=(--set "seeds=[$1]") setting
  for setting in "${@:2}"; do sets+=(--set "$setting"); done
  offramp run "$study" --store "$store" --data-root "$data" --set numerics=cpu-bf16 --workers 1 --quiet "${sets[@]}"
}

plain() {  # SEED WIDTH EPOCHS: the network alone, ending in the head that early exits have
  train "$1" "backbone.width=$2" "recipe.epochs=$3" "exits.taps=[group3.block.norm]" \
    "strategies=[{name: separate, only: 1}]"
}

for seed; do
  if [ "${PART:-exits}" = exits ]; then
    train "$seed"
    plain "$seed" slim 31  # as many multiply-accumulates of training as the exits
  fi
  if [ "${PART:-plain}" = plain ]; then
    for width in small tiny mini slim micro; do plain "$seed" "$width" 19; done
  fi
done
