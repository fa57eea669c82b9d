"""Which tests go to one worker, and which begin first."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

#: Tests of these files share a server, whose start takes 5 to 20 s: beginning of the path -> group.
TOGETHER = {"tests/catalog/": "catalog", "tests/sim/test_ioc_": "ioc"}
#: Groups that take more than 10 s, the longest first: the workers end together.
LONGEST = (
    "tests/system/test_sim_session.py",
    "tests/system/test_live_paths.py",
    "catalog",
    "tests/system/test_demo.py",
    "ioc",
    "tests/service/test_mpiexec.py",
    "tests/cli/test_ctrl_c.py",
    "tests/solvers/test_plan.py",
    "tests/service/test_pilots.py",
    "tests/solvers/test_ranks.py",
    "tests/system/test_absent_services.py",
    "tests/solvers/cuda/test_device_ranks.py",
    "tests/service/test_daemon_killed.py",
    "tests/system/test_slurm.py",
    "tests/service/test_epics.py",
    "tests/solvers/cuda/test_cuda_sweeps.py",
    "tests/cli/test_commands.py",
    "tests/service/test_resume.py",
    "tests/service/test_live_solving.py",
    "tests/solvers/test_real_data.py",
    "tests/benchmarks/test_gpu_benchmark.py",
    "tests/solvers/cuda/test_sanitized.py",
    "tests/api/test_bad_input.py",
    "tests/api/test_runs.py",
)


def group_of(test: str) -> str:
    """The group of a test: its file, or what its file shares a server with."""
    path = test.partition("::")[0]
    return next((group for beginning, group in TOGETHER.items() if path.startswith(beginning)), path)


class SharingOut(LoadScopeScheduling):
    """A worker gets whole groups: fixtures of a file are set up once.

    ``--dist loadgroup`` would need the marker ``xdist_group``, which pytest 9.2 lets xdist 3.8 no longer see.
    """

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)

    def _assign_work_unit(self, node: object) -> None:
        order = {group: place for place, group in enumerate(LONGEST)}
        self.workqueue.move_to_end(min(self.workqueue, key=lambda group: order.get(group, len(order))), last=False)
        super()._assign_work_unit(node)
