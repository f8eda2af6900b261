"""The command line: what a person does with a cluster; the Makefile's cluster targets call it."""

import argparse
import sys

from tests.cluster import api_tier, operations, programs, state, teardown, two_nodes
from tests.cluster.failures import ClusterError


def main() -> int:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="bring up a control plane and two nodes, and print the kubeconfig")
    commands.add_parser("down", help="take everything down")
    commands.add_parser("status", help="say what runs")
    commands.add_parser("kubeconfig", help="print the path of the kubeconfig")
    commands.add_parser("build", help="build all programs into the cache")
    commands.add_parser("api", help="run an API server with simulated nodes until it is interrupted")
    commands.add_parser("load", help="import an image into both nodes").add_argument(
        "image", help="an OCI or docker archive, or the name of an image that buildah, podman or docker holds"
    )
    for name, does in (("unplug", "cut a node's network cable"), ("plug", "mend it")):
        commands.add_parser(name, help=does).add_argument("node")
    arguments = parser.parse_args()
    try:
        return run(arguments)
    except ClusterError as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1


def run(arguments: argparse.Namespace) -> int:
    """Do what the arguments say and return the exit code."""
    match arguments.command:
        case "up":
            print(f"export KUBECONFIG={two_nodes.up(say)}")
        case "down":
            teardown.down(say)
        case "status":
            return 0 if operations.status(say) else 1
        case "kubeconfig":
            operations.require_up(state.FOLDER)
            print(two_nodes.kubeconfig_of())
        case "build":
            programs.build([program.name for program in programs.PROGRAMS], say)
        case "api":
            api_tier.serve(say)
        case "load":
            operations.load(arguments.image, say)
        case "unplug" | "plug":
            operations.set_plugged(arguments.node, arguments.command == "plug", say)
    return 0


def say(words: str) -> None:
    """Tell the person, at once, on the stream that is not the result."""
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
