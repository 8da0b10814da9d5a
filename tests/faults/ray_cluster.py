"""A Ray cluster of two nodes on this machine, as a process of its own: it prints its address, a line on stdin kills the
second node, the end of stdin ends it. Tasks have the environment of this process."""

from __future__ import annotations

import sys
import tempfile

from ray.cluster_utils import Cluster

PATIENCE = 180.0  # seconds, on a machine that is busy with other tests
MEMORY = 80 << 20  # bytes of each node's object store


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        cluster, node = Cluster(), {"wait": False, "num_cpus": 1, "object_store_memory": MEMORY}
        cluster.add_node(include_dashboard=False, temp_dir=folder, **node)
        second = cluster.add_node(**node)
        cluster.wait_for_nodes(timeout=PATIENCE)
        print(f"address {cluster.address}", flush=True)
        if sys.stdin.readline():
            cluster.remove_node(second, allow_graceful=False)
            print("killed", flush=True)
            sys.stdin.readline()
        cluster.shutdown()


if __name__ == "__main__":
    main()
