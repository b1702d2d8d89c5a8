"""The twins for an event loop, on a real repository."""

import asyncio
import inspect
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from overair import Conditions, Offer, Progress, Staged, Updater, UpToDate
from overair.aio import AsyncUpdater
from overair.errors import IllegalEventError, NetworkError
from overair.model.release import Bundle
from support.job_scene import LIMIT_S, SLOW, STEADY, Scene, until
from support.misbehaving import Status


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with Scene(tmp_path) as scene:
        yield scene


def run(scene: Scene, story: Callable[[AsyncUpdater], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        async with AsyncUpdater(scene.set_up()) as updater:
            await asyncio.wait_for(story(updater), LIMIT_S)

    asyncio.run(whole())


def test_every_call_that_takes_time_has_a_twin_with_the_same_arguments() -> None:
    twins = ["check", "plan", "download", "update", "verify", "rollback", "status", "history", "collect_garbage"]
    for name in twins:
        twin, original = getattr(AsyncUpdater, name), getattr(Updater, name)
        assert inspect.iscoroutinefunction(twin), name
        expected = [p for p in inspect.signature(original).parameters if p != "cancel"]  # the task is cancelled instead
        assert list(inspect.signature(twin).parameters) == expected, name
    assert list(inspect.signature(AsyncUpdater.open).parameters) == list(inspect.signature(Updater).parameters)


def test_a_device_is_set_up_and_brings_an_update(scene: Scene) -> None:
    size = scene.publish()
    root = scene.site / "metadata" / "1.root.json"
    seen: list[tuple[int, int]] = []

    def show(progress: Progress) -> None:
        seen.append((progress.bytes_done, threading.get_ident()))

    async def story() -> None:
        async with await AsyncUpdater.open(scene.store, url=scene.server.url, tier="1b", root=root) as updater:
            offer = await updater.check()
            assert isinstance(offer, Offer)
            assert (await updater.plan(offer)).bytes_to_fetch == size
            staged = await updater.download(offer, on_progress=show)
            assert staged.release.version == "1.0.0"
            assert isinstance(await updater.update(), UpToDate)
            status = await updater.status()
            assert status.pending is not None
            assert (await updater.verify()).sound == 1
            assert [event.version for event in await updater.history()] == ["1.0.0"]
            assert await updater.collect_garbage() == 0
            with pytest.raises(IllegalEventError):
                await updater.rollback()

    asyncio.run(asyncio.wait_for(story(), LIMIT_S))
    assert seen[-1][0] == size
    assert {thread for _, thread in seen} == {threading.get_ident()}, "progress came on another thread"


def test_a_cancelled_task_stops_the_download_and_keeps_what_came(scene: Scene) -> None:
    size = scene.publish(fault=SLOW)

    async def story(updater: AsyncUpdater) -> None:
        flows = asyncio.Event()

        def show(progress: Progress) -> None:
            if progress.bytes_done > 300_000:
                flows.set()

        task = asyncio.create_task(updater.update(on_progress=show))
        await flows.wait()
        started = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - started < 2.0
        assert updater.updater.collect_garbage() == 0, "the download still holds the store"
        served = scene.served()
        del scene.server.faults[scene.blob]
        assert isinstance(await updater.update(), Staged)
        assert scene.served() - served < 0.95 * size, "it began again"

    run(scene, story)


def test_a_task_that_is_cancelled_again_and_again_waits_for_the_download_to_stop(scene: Scene) -> None:
    scene.publish(fault=SLOW)

    async def story(updater: AsyncUpdater) -> None:
        flows = asyncio.Event()
        task = asyncio.create_task(updater.update(on_progress=lambda _: flows.set()))
        await flows.wait()
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)
        assert task.cancelled()
        assert updater.updater.collect_garbage() == 0, "the download still holds the store"

    run(scene, story)


def test_a_timeout_stops_a_download(scene: Scene) -> None:
    scene.publish(fault=SLOW)

    async def story(updater: AsyncUpdater) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(updater.update(), 0.5)
        assert updater.updater.collect_garbage() == 0

    run(scene, story)


def test_errors_arrive_as_they_are(scene: Scene) -> None:
    scene.publish(fault=Status(404))

    async def story(updater: AsyncUpdater) -> None:
        with pytest.raises(NetworkError, match="404"):
            await updater.update(conditions=Conditions(min_free_bytes=0))

    run(scene, story)


def test_the_loop_goes_on_while_an_update_is_under_way(scene: Scene) -> None:
    scene.publish(fault=STEADY)

    async def story(updater: AsyncUpdater) -> None:
        longest, last = 0.0, time.monotonic()
        task = asyncio.create_task(updater.update())
        while not task.done():
            await asyncio.sleep(0.01)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        await task
        assert longest < 0.5, "the loop stood still"

    run(scene, story)


class Threads:
    """An engine that notes which threads call it."""

    name = "threads"
    version = "threads 1"

    def __init__(self) -> None:
        self.callers: set[int] = set()
        self.loaded = False
        self.answering = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def load(self, bundle: Bundle) -> None:
        assert bundle.model.is_file()
        self.callers.add(threading.get_ident())
        self.loaded = True

    def generate(self, prompt: str, *, max_tokens: int = 128) -> str:
        self.callers.add(threading.get_ident())
        self.answering.set()
        assert self.go_on.wait(LIMIT_S)
        assert self.loaded, "unloaded in the middle of an answer"
        return f"answer to {prompt}"[:max_tokens]

    def unload(self) -> None:
        self.callers.add(threading.get_ident())
        self.loaded = False


def test_a_session_answers_and_all_calls_of_the_engine_come_from_one_thread(scene: Scene) -> None:
    scene.publish()
    engine = Threads()

    async def story(updater: AsyncUpdater) -> None:
        await updater.update()
        async with updater.session(engine) as session:
            answers = await asyncio.gather(*(session.generate(f"question {n}") for n in range(5)))
            assert all(answers)
            assert session.bundle.version == "1.0.0"
            assert [event.what for event in session.happened] == ["swapped", "confirmed"]
        status = await updater.status()
        assert status.current is not None
        assert status.current.proven
        assert status.sessions == 0

    run(scene, story)
    assert len(engine.callers) == 1
    assert threading.get_ident() not in engine.callers


def test_a_session_without_an_engine_takes_the_verdict(scene: Scene) -> None:
    scene.publish()

    async def story(updater: AsyncUpdater) -> None:
        await updater.update()
        async with updater.session() as session:
            assert session.bundle.model.is_file()
            with pytest.raises(IllegalEventError):
                await session.generate("x")
            await session.confirm()
        async with updater.session() as session:
            await session.fail("the answers are empty")
            assert "failed" in [event.what for event in session.happened]

    run(scene, story)


def test_an_engine_of_the_apps_own_is_observed(scene: Scene) -> None:
    scene.publish()

    async def story(updater: AsyncUpdater) -> None:
        await updater.update()
        async with updater.session() as session:
            with pytest.raises(RuntimeError, match="no answer"):
                async with session.observe():
                    raise RuntimeError("no answer")
            assert [event.what for event in session.happened] == ["swapped", "failed"]
            with pytest.raises(asyncio.CancelledError):
                async with session.observe():
                    raise asyncio.CancelledError
            async with session.observe(timeout_s=LIMIT_S):
                await asyncio.sleep(0)
            assert "failed" not in [event.what for event in session.happened[2:]], (
                "a task that is cancelled is no fault"
            )

    run(scene, story)


def test_an_answer_that_nobody_waits_for_ends_before_the_model_is_unloaded(scene: Scene) -> None:
    scene.publish()
    engine = Threads()

    async def story(updater: AsyncUpdater) -> None:
        await updater.update()
        engine.go_on.clear()
        async with updater.session(engine) as session:
            task = asyncio.create_task(session.generate("x"))
            await asyncio.to_thread(engine.answering.wait, LIMIT_S)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            engine.go_on.set()
        assert (await updater.status()).sessions == 0

    run(scene, story)
    assert not engine.loaded


def test_a_session_that_does_not_start_leaves_no_thread(scene: Scene) -> None:
    async def story(updater: AsyncUpdater) -> None:
        with pytest.raises(IllegalEventError, match="nothing is installed"):
            async with updater.session(Threads()):
                pass

    run(scene, story)
    until(lambda: not session_threads(), "the thread has ended")


def session_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("overair-session")]
