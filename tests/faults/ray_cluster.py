"""A Ray cluster of two nodes on this machine, as a process of its own: it prints its address, a line on stdin kills the
second node, the end of stdin ends it. Tasks have the environment of this process."""

from __future__ import annotations

import sys
import tempfile

from ray.cluster_utils import Cluster

MEMORY = 80 << 20  # bytes of each node's object store


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        head = {"include_dashboard": False, "temp_dir": folder, "num_cpus": 1, "object_store_memory": MEMORY}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        second = cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
        print(f"address {cluster.address}", flush=True)
        if sys.stdin.readline():
            cluster.remove_node(second, allow_graceful=False)
            print("killed", flush=True)
            sys.stdin.readline()
        cluster.shutdown()


if __name__ == "__main__":
    main()
