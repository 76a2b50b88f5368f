"""A signal is answered between two steps, on whichever thread the loop runs."""

import signal
import sys
from pathlib import Path

import pytest

from tests.support.runs import checkpoints, only_run, opened, script, started

ON_A_THREAD = """
import signal, threading
BEFORE
run = cas.track("a", name="x", strategy={"on_signal": True})
stop = []
def loop():
    step = 0
    while not stop:
        step += 1
        time.sleep(0.005)
        if run.should_save(step):
            run.save_checkpoint(model={"w": step}, step=step)
            stop.append(AFTER)
worker = threading.Thread(target=loop, daemon=True)
worker.start()
print("ready", flush=True)
worker.join(30)
told.wait(30)
run.finish()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_the_handler_before_is_called_on_the_main_thread(here: Path, number: int) -> None:
    before = (
        "told = threading.Event()\n"
        "def handler(number, _):\n"
        "    assert threading.current_thread() is threading.main_thread()\n"
        "    print('handled', int(number), flush=True)\n"
        "    told.set()\n"
        f"signal.signal({int(number)}, handler)"
    )
    text = ON_A_THREAD.replace("BEFORE", before).replace("AFTER", "1")
    child = started(here, sys.executable, script(here, text))
    assert child.stdout is not None
    child.stdout.readline()
    child.send_signal(number)
    out, said = child.communicate(timeout=60)
    assert out.splitlines() == [f"handled {int(number)}"]
    assert child.returncode == 0, said
    repo = opened(here)
    tip, commit = only_run(repo)
    assert commit.status == "finished"
    assert len(checkpoints(repo, tip)) == 1


def test_without_one_sigterm_ends_the_process(here: Path) -> None:
    text = ON_A_THREAD.replace("BEFORE", "told = threading.Event()").replace("AFTER", "1")
    child = started(here, sys.executable, script(here, text))
    assert child.stdout is not None
    child.stdout.readline()
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=60)
    assert child.returncode == -signal.SIGTERM
    repo = opened(here)
    tip, commit = only_run(repo)
    assert (commit.status, commit.message) == ("interrupted", "ended by SIGTERM")
    assert len(checkpoints(repo, tip)) == 1
