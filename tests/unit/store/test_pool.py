"""Jobs on all cores: results in order, bounded, and usable after a fork."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from cas.store.pool import AWAY, Lane, Ordered, one_ahead, ordered, workers

BIG = AWAY  # from this size on a job goes to a thread


def test_results_come_in_the_order_of_the_jobs() -> None:
    def job(number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return number

    jobs = ((partial(job, number), BIG) for number in range(40))
    assert list(ordered(jobs, 8 * BIG)) == list(range(40))


def test_no_more_is_under_way_than_there_is_room_for() -> None:
    under_way, most, lock = 0, 0, threading.Lock()

    def job() -> None:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.001)
        with lock:
            under_way -= 1

    assert len(list(ordered(((job, 10 * BIG) for _ in range(20)), 15 * BIG))) == 20
    assert most == 1


def test_a_stream_of_jobs_is_not_read_further_than_there_is_room_for() -> None:
    given = 0

    def jobs() -> Iterator[tuple[Callable[[], int], int]]:
        nonlocal given
        for number in range(100):
            given += 1
            yield partial(int, number), BIG

    results = ordered(jobs(), 4 * BIG)
    assert next(results) == 0
    assert given <= 6


def test_an_error_is_raised_in_its_turn_and_drops_what_is_behind() -> None:
    taken: list[int] = []
    queue = Ordered(taken.append, 100 * BIG)

    def fail() -> int:
        raise ValueError("broken")

    def all_three() -> None:
        for job in (lambda: 1, fail, lambda: 2):
            queue.put(job, BIG)
        queue.settle()

    with pytest.raises(ValueError, match="broken"):
        all_three()
    assert taken == [1]
    assert not queue


def test_small_jobs_run_at_once_but_never_overtake() -> None:
    threads: list[str] = []
    taken: list[int] = []
    queue = Ordered(taken.append, 100 * BIG)

    def job(number: int) -> int:
        threads.append(threading.current_thread().name)
        time.sleep(0.02 if number == 1 else 0)
        return number

    queue.put(lambda: job(0), 1)
    assert (taken, threads) == ([0], [threading.current_thread().name])
    queue.put(lambda: job(1), BIG)
    queue.put(lambda: job(2), 1)
    queue.settle()
    assert taken == [0, 1, 2]


def test_a_forked_child_has_threads_of_its_own() -> None:
    assert list(ordered([(lambda: 1, BIG)], BIG)) == [1]
    child = os.fork()
    if not child:
        os._exit(0 if list(ordered([(lambda: 7, BIG)], BIG)) == [7] else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_forked_child_waits_for_nobody() -> None:
    go = threading.Event()
    queue: Ordered[bool] = Ordered(lambda _: None, 9 * BIG)
    queue.put(go.wait, BIG)
    lane = Lane()
    lane.put(go.wait)
    child = os.fork()
    if not child:
        queue.drop()
        lane.drop()
        os._exit(0)
    ended = os.waitpid(child, 0)[1]
    go.set()
    queue.settle()
    lane.settle()
    assert ended == 0


def test_there_are_as_many_threads_as_this_process_may_use_cores() -> None:
    assert 1 <= workers() <= (os.cpu_count() or 1)


def test_what_is_too_small_for_a_thread_waits_for_its_turn() -> None:
    taken: list[int] = []
    where: list[threading.Thread] = []
    go_on = threading.Event()

    def large() -> int:
        assert go_on.wait(10)
        return 1

    def small() -> int:
        where.append(threading.current_thread())
        return 2

    queue = Ordered(taken.append, 100 * BIG)
    queue.put(large, BIG)
    queue.put(small, 10)
    assert where == [threading.main_thread()]
    assert taken == []
    go_on.set()
    queue.settle()
    assert taken == [1, 2]


def test_an_error_of_a_small_job_is_raised_in_its_turn() -> None:
    taken: list[int] = []
    go_on = threading.Event()

    def large() -> int:
        assert go_on.wait(10)
        return 1

    def fail() -> int:
        raise ValueError("broken")

    queue = Ordered(taken.append, 100 * BIG)
    queue.put(large, BIG)
    queue.put(fail, 10)
    go_on.set()
    with pytest.raises(ValueError, match="broken"):
        queue.settle()
    assert taken == [1]


def test_the_next_is_read_while_the_one_before_is_used() -> None:
    begun: list[int] = []
    second = threading.Event()

    def read(number: int) -> int:
        begun.append(number)
        if number == 1:
            second.set()
        return number

    numbers = one_ahead(partial(read, number) for number in range(100))
    assert next(numbers) == 0
    assert second.wait(10)
    time.sleep(0.05)
    assert begun == [0, 1]
    numbers.close()
    assert begun == [0, 1]


class TestLane:
    def test_jobs_are_done_one_after_another(self) -> None:
        done: list[int] = []

        def job(number: int) -> None:
            before = len(done)
            time.sleep(0.002 * (number % 3))
            assert len(done) == before
            done.append(number)

        lane = Lane(4)
        for number in range(20):
            lane.put(partial(job, number))
        lane.settle()
        assert done == list(range(20))

    def test_so_many_are_under_way_before_somebody_waits(self) -> None:
        go_on = threading.Event()
        lane = Lane(3)
        for _ in range(3):
            lane.put(partial(go_on.wait, 10))
        threading.Timer(0.05, go_on.set).start()
        lane.put(int)
        assert go_on.is_set()
        lane.settle()

    def test_nothing_is_done_behind_a_failure(self) -> None:
        done: list[int] = []
        go_on = threading.Event()

        def fail() -> None:
            assert go_on.wait(10)
            raise ValueError("broken")

        lane = Lane(3)
        lane.put(fail)
        lane.put(partial(done.append, 1))
        lane.put(partial(done.append, 2))
        go_on.set()
        for _ in range(2):
            with pytest.raises(ValueError, match="broken"):
                lane.settle()
        with pytest.raises(ValueError, match="broken"):
            lane.put(partial(done.append, 3))
        lane.drop()
        assert done == []
