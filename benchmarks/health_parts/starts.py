"""Good starts of real models on the whole path: published, downloaded, probed, swapped in, asked, confirmed."""

import tempfile
from pathlib import Path
from typing import Final

from health_parts.cases import GOOD_ENGINE, App
from health_parts.trial import TIER, VERSION, copy_of_the_good_device, run_app

from overair.device.updater import Updater
from overair.errors import OverairError
from overair.model.events import Happening
from overair.publish.repository import Repository
from overair.publish.serve import Server

_ALARMS: Final = frozenset(
    {Happening.REFUSED, Happening.FAILED, Happening.CRASHED, Happening.ROLLED_BACK, Happening.QUARANTINED}
)


def false_alarms(model: Path, starts: int) -> list[str]:
    """What went wrong in those of `starts` good starts that did not go well, each on a device of its own."""
    with tempfile.TemporaryDirectory() as name:
        site = Path(name, "site")
        site.mkdir()
        with Server(site) as server:
            repository = Repository.init(site, base_url=server.url, dev=True)
            repository.publish(model, tier=TIER, version=VERSION, probe=False)
            found = [one_start(server.url, repository.root_path) for _ in range(starts)]
    return [wrong for wrong in found if wrong]


def one_start(url: str, root: Path) -> str:
    """What went wrong, or an empty text."""
    with tempfile.TemporaryDirectory() as name:
        store = copy_of_the_good_device(Path(name))
        try:
            with Updater(store.layout.root, url=url, root=root, insecure=False, engine=GOOD_ENGINE) as device:
                device.update()
        except OverairError as error:
            return error.message
        ran = run_app(store, GOOD_ENGINE, "", App())
        with Updater(store.layout.root) as device:
            events = device.history()
        alarms = [f"{event.what}: {event.reason}" for event in events if event.what in _ALARMS]
        probed = any(event.what is Happening.PROBED and event.version == VERSION for event in events)
        current = store.read().current
        if current is None or current.release.version != VERSION or not current.proven or not probed or ran.came < 1:
            alarms.append(f"{VERSION} is not proven: {ran}")
        return "; ".join(alarms)
