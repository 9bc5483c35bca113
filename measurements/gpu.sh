#!/bin/sh
# Everything that is worth knowing of a machine with one GPU, in about ten minutes, without a network:
#
#     sh measurements/gpu.sh OUT [CIFAR]
#
# OUT is a new folder for what was found; CIFAR a folder with cifar-10-batches-py/, or a zip with class
# folders, such as data/cifar10.zip. Needs the project's files, and a Python with torch, torchvision,
# torchmetrics, timm, safetensors, numpy, scikit-learn, matplotlib and pytest. PYTHON names another
# Python, SECONDS_LEFT how long the last part may take.
set -u
out=${1:?"usage: sh measurements/gpu.sh OUT [CIFAR]"}
cifar=${2:-}
python=${PYTHON:-python}
left=${SECONDS_LEFT:-300}
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
if not torch.cuda.is_available(): sys.exit("torch finds no CUDA device")
print(torch.__version__, torch.cuda.get_device_name())' > "$out/machine.txt" 2>&1 || {
    cat "$out/machine.txt"
    exit 2
}
cat "$out/machine.txt"

# The whole suite's fixtures need Label Studio, those of these folders do not; nor do they need
# pytest-timeout, for which the project's settings have a value.
gpu_tests() {
    "$python" -m pytest -q -p no:cacheprovider -o addopts=--import-mode=importlib \
        -W ignore::pytest.PytestConfigWarning --confcutdir="$1" -m gpu "$1"
}
part tests gpu_tests tests/selectors
part tests-models gpu_tests tests/models
part speed timeout 180 "$python" measurements/gpu.py --device cuda
part selection timeout 180 "$python" -m measurements.selection --million --device cuda

if [ -n "$cifar" ]; then
    part cifar timeout --signal=INT --kill-after=30 "$left" "$python" -m cdal benchmark \
        --protocol paper:cifar-10 --dataset "$cifar" --out "$out/cifar-10" --device cuda \
        --selectors random,core-set,cdal-cs,cdal-rl,vaal,learning-loss
fi
echo "written to $out"
exit $failed
