"""Works off a schedule with a pool of workers: this process, others of this machine, a team's, or a Ray cluster's.

What they compute is in the store.
"""

from __future__ import annotations

from collections.abc import Callable

from alignfirst.errors import StoreError
from alignfirst.process_environment import launched
from alignfirst.signals import INTERRUPTS
from alignfirst.store import Store
from alignfirst.study.execution import process_group
from alignfirst.study.execution.local_pool import InlinePool, ProcessPool
from alignfirst.study.execution.options import ExecutionOptions
from alignfirst.study.execution.pool import Pool
from alignfirst.study.execution.schedule import Schedule
from alignfirst.study.execution.worker import Report, Task
from alignfirst.world import World

Progress = Callable[[int, int, str, int], None]  # nodes settled, nodes in all, kind of the last task, busy workers
OnReport = Callable[[Task, Report, int, int], None]  # task, what became of it, its worker, busy workers


def execute(
    schedule: Schedule,
    world: World,
    reference: str,
    store: Store,
    options: ExecutionOptions,
    on_report: OnReport,
    on_death: Callable[[], None] | None = None,
) -> None:
    """Work the schedule off. `reference` names the world to other processes, as `worker.load_world` reads it.

    Raises StoreError when the store cannot be written. However the call ends, no process of it is left, and what was
    computed until then is in the store. Interrupted, it gives long stages a few seconds to write down how far they
    are; interrupted again, it ends at once.
    """
    pool = pool_for(world, reference, store, options)
    try:
        while not schedule.finished:
            while pool.idle and (task := schedule.next(pool.idle)) is not None:
                pool.submit(task)
            outcome = pool.wait()
            if outcome.report is None:
                schedule.died(outcome.task, outcome.death)
                if on_death is not None:  # what its nodes failed with may be what others wait for
                    on_death()
                continue
            settle(schedule, outcome.task, outcome.report)
            on_report(outcome.task, outcome.report, outcome.worker, pool.busy)
    except INTERRUPTS:
        pool.interrupt()
        raise
    finally:
        pool.close()


def pool_for(world: World, reference: str, store: Store, options: ExecutionOptions) -> Pool:
    seconds, at_once = options.checkpoint_seconds, options.tasks_at_once
    if launched() > 1:
        return process_group.ProcessGroupPool(world, store, seconds)
    if options.cluster is not None:
        from alignfirst.study.execution.ray_pool import RayPool  # imports ray

        return RayPool(reference, store, at_once, options.cluster, seconds)
    if not at_once:
        return InlinePool(world, store, seconds)
    return ProcessPool(reference, store, at_once, seconds)


def settle(schedule: Schedule, task: Task, report: Report) -> None:
    if report.fatal is not None:
        raise StoreError(report.fatal)
    schedule.succeed(node.key for node in task.nodes if node.key in report.digests)
    for key, reason in report.failures.items():
        schedule.fail(key, reason)
