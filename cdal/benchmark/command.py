"""``cdal benchmark``: simulate, resume, and draw the report."""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError

from cdal.benchmark.ablations import ABLATIONS, Ablation
from cdal.benchmark.data_set import Part
from cdal.benchmark.errors import BenchmarkError
from cdal.benchmark.folder import SimulationFolder
from cdal.benchmark.loaded_data import LoadedData
from cdal.benchmark.plan import Plan, kind_of, machine, make_plan, pool_of
from cdal.benchmark.simulation import Simulation
from cdal.datasets import DatasetError
from cdal.models import ModelError
from cdal.selectors import OptionError, PoolError

INTERRUPTED = 130
"""The exit status of a command ended by Ctrl-C, as in shells."""


def run(arguments: argparse.Namespace) -> int:
    """Simulate, or draw a report.

    Returns:
        0; 2, with one sentence on standard error, if an argument or a file is wrong, or a file
        cannot be written; 130 after Ctrl-C.
    """
    simulates = arguments.benchmark_command not in ("report", "figure")
    again = " Run the same command to resume." if simulates else ""
    try:
        if arguments.benchmark_command == "report":
            return 0 if _report(arguments.folder) else 2
        if arguments.benchmark_command == "figure":
            return _figure(arguments)
        return _simulate(arguments)
    except KeyboardInterrupt:
        _say(f"Stopped.{again}")
        return INTERRUPTED
    except (BenchmarkError, DatasetError, ModelError, OptionError, PoolError) as error:
        sys.stderr.write(f"cdal benchmark: {error}\n")
        return 2
    except (OSError, SafetensorError) as error:  # safetensors writes files by itself
        sys.stderr.write(f"cdal benchmark: {_why(error)}.{again}\n")
        return 2


def _why(error: OSError | SafetensorError) -> str:
    """What the system refused, with the file's name where it is known."""
    if isinstance(error, SafetensorError) or error.strerror is None:
        return str(error)
    return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"


def _simulate(arguments: argparse.Namespace) -> int:
    loaded: LoadedData | None = None
    read_for: tuple[str, int] | None = None
    # All plans first: what cannot be is refused before hours of other runs.
    plans = [(make_plan(asked), asked.out) for asked in _runs(arguments)]
    for plan, out in plans:
        network = plan.settings.network, plan.settings.image_size
        folder = SimulationFolder(out)
        folder.begin(plan.settings)
        if loaded is None or network != read_for:
            loaded, read_for = None, network  # two sets of images may not fit into memory
            _say(f"reading {len(plan.data.pool) + len(plan.data.test):,} images")
            loaded = plan.read(arguments.features or arguments.out / "features")
        folder.write_images(loaded.data.pool.names, loaded.data.test.names, loaded.occurring())
        status = _run_plan(plan, loaded, folder)
        if status != 0:
            return status
        _report(folder.path, plan.data.pool)
    _compare_values(arguments)
    return 0


def _runs(arguments: argparse.Namespace) -> Iterator[argparse.Namespace]:
    """The arguments of each run: one run, or one per value of an ablation's option."""
    ablation = _ablation(arguments)
    if ablation is None:
        yield arguments
        return
    ablation.check(arguments.name, vars(arguments))
    if arguments.selectors is None:
        arguments.selectors = ablation.selectors
    if ablation.option is None or None in (arguments.out, arguments.dataset):
        yield arguments
        return
    for value, out in _folders(arguments, ablation).items():
        asked = copy.copy(arguments)
        setattr(asked, ablation.option, ablation.read(value))
        asked.out = out
        yield asked


def _ablation(arguments: argparse.Namespace) -> Ablation | None:
    """The requested ablation, if any."""
    wanted = arguments.benchmark_command == "ablation"
    return ABLATIONS[arguments.name] if wanted else None


def _folders(arguments: argparse.Namespace, ablation: Ablation) -> dict[str, Path]:
    """The folder of each run of an ablation, by the option's value."""
    if arguments.values is not None:
        values = ablation.read_values(arguments.values)
    else:
        values = ablation.values(*kind_of(arguments))
    return {value: arguments.out / f"{ablation.option}-{value}" for value in values}


def _run_plan(plan: Plan, loaded: LoadedData, folder: SimulationFolder) -> int:
    simulation = Simulation(plan.settings, plan.curves, loaded, folder)
    done, every = simulation.steps_done()
    if done:
        _say(f"{done} of {every} steps are already done")
    dataset = {
        "task": plan.data.task,
        "classes": list(plan.data.classes),
        "pool": len(loaded.pool),
        "test": len(plan.data.test),
    }
    try:
        simulation.run()
    except KeyboardInterrupt:
        done, every = simulation.steps_done()
        _say(f"Stopped with {done} of {every} steps done. Run the same command to resume.")
        return INTERRUPTED
    finally:
        file = folder.write_results(plan.settings, dataset, machine(plan.device))
    _say(f"results: {file}")
    return 0


def _report(folder: Path, pool: Part | None = None) -> bool:
    """Draw the report if its libraries are installed; return whether it was drawn."""
    try:
        from cdal.benchmark.report import write_report
    except ImportError as error:
        _say(f"no report: {error.name} is not installed; results.json has all the figures")
        return False
    _say(f"report: {write_report(folder, pool)}")
    return True


def _figure(arguments: argparse.Namespace) -> int:
    """Draw a figure of the paper, if the libraries are installed."""
    try:
        from cdal.benchmark.report import write_figure
    except ImportError as error:
        _say(f"no figure: {error.name} is not installed")
        return 2
    file = write_figure(
        arguments.name, arguments.folders, arguments.out, pool_of, arguments.class_name
    )
    _say(f"figure: {file}")
    return 0


def _compare_values(arguments: argparse.Namespace) -> None:
    """Draw the runs of an ablation side by side, if the libraries are installed."""
    ablation = _ablation(arguments)
    if ablation is None or ablation.option is None:
        return
    with suppress(ImportError):  # already reported by each run
        from cdal.benchmark.report import write_ablation

        table = write_ablation(arguments.out, ablation.option, _folders(arguments, ablation))
        _say(f"side by side: {table}")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
