"""The public names as a user's type checker sees them; mypy reads this file with the others."""

from pathlib import Path
from typing import assert_type

import overair


def uses_every_call(updater: overair.Updater, engine: overair.Engine) -> None:
    answer = updater.check()
    assert_type(answer, overair.Offer | overair.UpToDate | overair.Deferred)
    if isinstance(answer, overair.Offer):
        assert_type(updater.plan(answer), overair.Plan)
        conditions = overair.Conditions(min_free_bytes=2 * overair.GB, max_bytes_per_second=None)
        assert_type(updater.download(answer, conditions=conditions, on_progress=print), overair.Staged)
    assert_type(updater.update(), overair.Staged | overair.UpToDate | overair.Deferred)
    with updater.session(engine) as session:
        assert_type(session, overair.Session)
        assert_type(session.generate("Hello", max_tokens=8), str)
        assert_type(session.bundle.model, Path)
        session.confirm()
        session.fail("it is rude")
    assert_type(updater.status(), overair.Status)
    assert_type(updater.verify(repair=True), overair.Verified)
    assert_type(updater.collect_garbage(), int)


def publishes(repository: overair.Repository) -> str:
    done = repository.publish(["model.gguf"], tier="1b", version="2.1.0", rollout=0.1, probe=False)
    return assert_type(done.sha256, str)


def test_the_public_names_are_there() -> None:
    assert {name for name in overair.__all__ if not hasattr(overair, name)} == set()
    assert callable(uses_every_call)
    assert callable(publishes)
