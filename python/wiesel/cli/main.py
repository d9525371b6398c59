"""Entry point of ``wiesel``: reads the arguments, hands over to the command. Commands import what they need when they run."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

_DATA_SETS = ("digits", "mnist", "fashion-mnist", "cifar10")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code: 0, 1 for an error that is said in a line, 2 for wrong arguments, 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    if options.threads is not None:
        from wiesel import set_num_threads

        set_num_threads(options.threads)
    command = importlib.import_module(f"wiesel.cli.{options.module}")
    try:
        return int(getattr(command, options.command)(options))
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has left; Python must not complain about it at exit
        return 1
    except (ValueError, TypeError, OSError, ModuleNotFoundError) as error:
        if options.debug:
            raise
        print(f"wiesel {options.command}: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="wiesel", description="Train convolutional networks on a CPU. Nothing is ever downloaded.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, module: str, text: str) -> argparse.ArgumentParser:
        found = commands.add_parser(name, help=text, description=text)
        found.set_defaults(module=module)
        found.add_argument("--threads", type=_positive, help="threads to use (default: the cores that this process may use)")
        found.add_argument("--debug", action="store_true", help="show the traceback of an error")
        return found

    train = command("train", "train", "Train a net on a data set; report on its test pictures.")
    train.add_argument("data", choices=_DATA_SETS, help="digits comes with scikit-learn; for the others see --data-dir")
    _data_folder(train)
    train.add_argument("--net", help="a model of wiesel.models, such as lenet5 (default: by data set)")
    train.add_argument("--epochs", type=_positive, help="passes over the training pictures (default: by data set)")
    train.add_argument("--batch-size", type=_positive, help="pictures per step (default: by data set)")
    train.add_argument("--lr", type=float, help="highest learning rate of the one-cycle schedule (default: by data set)")
    train.add_argument("--seed", type=int, default=0, help="of initial weights, order, dropout, augmentation and split (default 0)")
    train.add_argument("--out", type=Path, help="folder for net, checkpoint and report (default: runs/DATA-NET)")
    train.add_argument("--resume", type=Path, metavar="FILE", help="go on from a checkpoint, with its settings, to the same bytes")

    evaluate = command("evaluate", "nets", "Figures of a saved net on a data set's test pictures.")
    evaluate.add_argument("net", type=Path, metavar="NET.wsl")
    evaluate.add_argument("data", choices=_DATA_SETS)
    _data_folder(evaluate)
    evaluate.add_argument("--split", choices=("test", "validation", "train"), default="test")
    evaluate.add_argument("--seed", type=int, default=0, help="of the split that the net was trained with (default 0)")
    evaluate.add_argument("--out", type=Path, help="folder for summary and confusion matrix (default: text only)")

    predict = command("predict", "nets", "Classes of picture files.")
    predict.add_argument("net", type=Path, metavar="NET.wsl")
    predict.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    predict.add_argument("--top", type=_positive, default=3, help="classes to show for each picture (default 3)")
    predict.add_argument("--invert", action="store_true", help="for dark ink on light paper: 255 minus each pixel")

    for name, text in (
        ("summary", "Layers, shapes, parameters, multiply-adds, memory, receptive fields."),
        ("explain", "What runs each step of a net: algorithm, kernel, blocking, and why faster ones were refused."),
    ):
        about = command(name, "nets", text)
        about.add_argument("net", metavar="NET", help="a file NET.wsl, or a model of wiesel.models")
        about.add_argument("--input", type=_shape, metavar="H,W,C", help="shape of one picture (needed for a model by name)")
        about.add_argument("--batch-size", type=_positive, default=1)
        if name == "summary":
            about.add_argument("--config", action="store_true", help="with every hyper-parameter")
        else:
            about.add_argument("--training", action="store_true", help="the training step")

    bench = command("bench", "bench", "Rates of this machine, time from trace to program, step times and overheads of nets, a profile.")
    bench.add_argument("--nets", default="lenet5,mnist,resnet18-32", help="comma-separated (default: %(default)s)")
    bench.add_argument("--seconds", type=float, default=2.0, help="for each net's steps (default: %(default)s)")
    bench.add_argument("--profile", metavar="NET", help="whose training step is shown step by step (default: the first of --nets)")
    bench.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    bench.add_argument("--trace", type=Path, metavar="FILE", help="write the profile for chrome://tracing or ui.perfetto.dev")
    bench.add_argument("--roofline", type=Path, metavar="FILE", help="draw the profile under the machine's roofs")
    return parser


def _data_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", type=Path, help="folder with the published files (default: $WIESEL_DATA, else ~/.cache/wiesel/data)")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def _shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(_positive(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be like 28,28,1, got {text!r}") from None
    return shape


if __name__ == "__main__":
    sys.exit(main())
