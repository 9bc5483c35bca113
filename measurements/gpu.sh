#!/bin/sh
# Everything worth knowing about a machine with one GPU, in ten minutes, without a network:
#
#     sh measurements/gpu.sh OUT [CIFAR]
#
# OUT is a new folder for what was found; CIFAR a folder with cifar-10-batches-py/, or a zip with class
# folders, such as data/cifar10.zip. Needs the project's files, and a Python with torch, torchvision,
# torchmetrics, timm, safetensors, numpy, scikit-learn, matplotlib and pytest. PYTHON names another
# Python, SECONDS_IN_ALL how long everything may take: CIFAR-10, the last part, gets what is left.
# DEVICE=cpu rehearses it without a GPU, with small amounts: the tests are then skipped.
set -u
usage="usage: sh measurements/gpu.sh OUT [CIFAR]"
absolute() {
    case $1 in
        /* | "") echo "$1" ;;
        *) echo "$PWD/$1" ;;
    esac
}
out=$(absolute "${1:?"$usage"}")
cifar=$(absolute "${2:-}")
python=${PYTHON:-python}
device=${DEVICE:-cuda}
end=$(($(date +%s) + ${SECONDS_IN_ALL:-560}))
if [ -n "$cifar" ] && [ ! -e "$cifar" ]; then
    echo "there is no $cifar; $usage"
    exit 2
fi
cd "$(dirname "$0")/.." || exit 2
mkdir -p "$out" || exit 2
PYTHONPATH=$(pwd)
export PYTHONPATH
failed=0

part() {
    name=$1
    shift
    echo "== $name: $*" | tee -a "$out/summary.txt"
    begun=$(date +%s)
    "$@" > "$out/$name.txt" 2>&1
    status=$?
    case "$name $status" in
        # Out of time is not a failure: steps are kept, and the same command resumes.
        *\ 0 | "cifar 124" | "cifar 137") ;;
        *) failed=1 ;;
    esac
    echo "   exit status $status, $(($(date +%s) - begun)) s" | tee -a "$out/summary.txt"
    tail -n 12 "$out/$name.txt" | tee -a "$out/summary.txt"
}

"$python" -c 'import torch, sys
cuda = torch.cuda.is_available()
if sys.argv[1] != "cpu" and not cuda: sys.exit("torch finds no CUDA device")
print(torch.__version__, torch.cuda.get_device_name() if cuda else "a CPU")' "$device" \
    > "$out/machine.txt" 2>&1 || {
    cat "$out/machine.txt"
    exit 2
}
cat "$out/machine.txt"

few_images="" few_labels="" few_epochs=""
if [ "$device" = cpu ]; then
    few_images="--images 1000" few_labels="--images 1 --labels 100"
    few_epochs="--limit 60 --test-limit 20 --seeds 1 --epochs 1"
fi

# The whole suite's fixtures need Label Studio, those of these folders do not; nor do they need
# pytest-timeout, for which the project's settings have a value. Other files may need hypothesis.
gpu_tests() {
    files=$(grep -rl --include="test_*.py" "mark\.gpu" "$1")
    timeout 90 "$python" -m pytest -q -p no:cacheprovider -o addopts=--import-mode=importlib \
        -W ignore::pytest.PytestConfigWarning --confcutdir="$1" -m gpu $files
}
# The amounts are several words: unquoted.
part tests gpu_tests tests/selectors
part tests-models gpu_tests tests/models
part speed timeout 120 "$python" measurements/gpu.py --device "$device" $few_labels
part selection timeout 120 "$python" -m measurements.selection --million --device "$device" $few_images

if [ -n "$cifar" ]; then
    left=$((end - $(date +%s)))
    if [ $left -lt 60 ]; then left=60; fi
    part cifar timeout --signal=INT --kill-after=30 $left "$python" -m cdal benchmark \
        --protocol paper:cifar-10 --dataset "$cifar" --out "$out/cifar-10" --device "$device" \
        --selectors random,core-set,cdal-cs,cdal-rl,vaal,learning-loss $few_epochs
fi
echo "written to $out"
exit $failed
