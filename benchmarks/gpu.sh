#!/usr/bin/env bash
# Measures a machine with an accelerator in one call: steps of the paper's chains and of the new
# defaults in float32 and bfloat16, and one run on CIFAR-10 with its figures.
#
#   benchmarks/gpu.sh OUTPUT [TFDS]          about an hour; without TFDS no run is trained
#   TINY=1 benchmarks/gpu.sh OUTPUT          the same with tiny models of the digits, on any machine
#
# OUTPUT gets one .csv and one .txt of each configuration and precision, and the run.
set -euo pipefail
output=${1:?"usage: benchmarks/gpu.sh OUTPUT [TFDS]"}
data=${2:-}
python=${PYTHON:-python}
mkdir -p "$output"
output=$(cd "$output" && pwd)
cd "$(dirname "$0")/.."

if [ -n "${TINY:-}" ]; then
  configs="digits_paper digits"
  sizes="--batch_sizes=8 --num_temperatures=2 --num_steps=2 --repeats=2
    --config.model.generator.features=4"
  run="--config=configs/digits.py --config.num_epochs=2 --config.model.generator.features=4
    --config.evaluation.likelihood.every_epochs=2 --budget=20s"
else
  configs="cifar10_paper cifar10 celeb_a_paper celeb_a"
  sizes=""
  run="--config=configs/cifar10.py --config.num_repetitions=1 --config.data.data_dir=$data
    --config.sampler.precision=bfloat16 --config.logging.gradient_bias_every_epochs=5
    --config.evaluation.likelihood.every_epochs=5 --budget=30m"
fi

for config in $configs; do
  for precision in float32 bfloat16; do
    name=$config-$precision
    # shellcheck disable=SC2086  # several flags in a variable
    "$python" -m benchmarks.step --config="configs/$config.py" --noplain $sizes \
      --config.sampler.precision=$precision --csv="$output/$name.csv" | tee "$output/$name.txt"
  done
done

if [ -n "${TINY:-}$data" ]; then
  # shellcheck disable=SC2086
  "$python" -m launch.train $run --workdir="$output/run" 2>&1 | tee "$output/train.txt"
  "$python" -m launch.eval --workdir="$output/run" --newest_only | tee "$output/eval.txt"
  "$python" -m launch.likelihood --workdir="$output/run" --num_images=20 | tee "$output/likelihood.txt"
fi
