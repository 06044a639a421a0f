"""Functions of many items, computed in processes that end with the one that started them."""

import os
import subprocess
import sys
import time

import pytest

from tests.helpers.paths import ROOT
from uno_jax.process.pool import PoolError, map_in_processes


def process_of(item):
    return item, os.getpid()


def slow_first(item):
    time.sleep(0.5 if item == 0 else 0)
    return item


def inverse(item):
    return 1 / item


def killed(item):
    os.kill(os.getpid(), 9)


def test_values_are_in_the_order_of_the_items_and_come_from_other_processes():
    assert list(map_in_processes(slow_first, range(5), 2)) == [0, 1, 2, 3, 4]
    found = list(map_in_processes(process_of, range(4), 2))
    assert [item for item, _ in found] == [0, 1, 2, 3]
    assert os.getpid() not in {process for _, process in found}


def test_one_item_or_one_process_is_computed_here():
    assert list(map_in_processes(process_of, [7], 2)) == [(7, os.getpid())]
    assert list(map_in_processes(process_of, range(3), 1)) == [(item, os.getpid()) for item in range(3)]
    assert list(map_in_processes(process_of, [], 2)) == []


def test_few_items_are_read_ahead():
    read = []
    items = (read.append(item) or item for item in range(100))
    values = map_in_processes(slow_first, items, 2)
    assert next(values) == 0
    assert len(read) <= 2 * 2 + 2
    values.close()


def test_an_exception_is_raised_here():
    with pytest.raises(ZeroDivisionError):
        list(map_in_processes(inverse, [1, 0, 2], 2))


def test_a_process_that_ends_is_one_sentence():
    with pytest.raises(PoolError, match="Lower --processes"):
        list(map_in_processes(killed, [1, 2], 2))


def test_processes_end_when_the_one_that_started_them_is_killed():
    program = (
        "import os\n"
        "from tests.process.pool_test import process_of\n"
        "from uno_jax.process.pool import map_in_processes\n"
        "print(next(values := map_in_processes(process_of, range(9), 2))[1], flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    worker = int(done.stdout)
    deadline = time.monotonic() + 60
    while _runs(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(worker)


def _runs(process):
    try:
        with open(f"/proc/{process}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"  # whoever adopted it need not have noticed
    except FileNotFoundError:
        return False
