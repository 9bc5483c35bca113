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
    [ $status -eq 0 ] || [ "$name $status" = "cifar 124" ] || failed=1
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

# The whole suite's fixtures need Label Studio, those of these folders do not.
part tests "$python" -m pytest -q -p no:cacheprovider --confcutdir=tests/selectors -m gpu tests/selectors
part tests-models "$python" -m pytest -q -p no:cacheprovider --confcutdir=tests/models -m gpu tests/models
part speed timeout 180 "$python" measurements/gpu.py --device cuda
part selection timeout 180 "$python" -m measurements.selection --million --device cuda

if [ -n "$cifar" ]; then
    # Out of time (124) is not a failure: steps are kept, and the same command resumes.
    part cifar timeout --signal=INT "$left" "$python" -m cdal benchmark --protocol paper:cifar-10 \
        --dataset "$cifar" --out "$out/cifar-10" --device cuda \
        --selectors random,core-set,cdal-cs,cdal-rl,vaal,learning-loss
fi
echo "written to $out"
exit $failed
