"""An app that runs one session of a device and ends: `app.py STORE ENGINE VERSION OPTIONS`.

It says `loading` and `answering` before the model of VERSION does so, and at the end one line of JSON: the version
that answered, and how many answers came and failed. An empty VERSION: the engine is named, and the session may probe.
"""

import ctypes
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "benchmarks")]

from health_parts.engines import PerModel  # noqa: E402  # it is started by its path

from overair.device.updater import Updater  # noqa: E402
from overair.errors import EngineError  # noqa: E402

PROMPTS = ("What is the capital of France?", "Write one sentence about the sea.", "Count from one to ten.")


def main(store: str, name: str, version: str, options: dict[str, Any]) -> None:
    engine = PerModel(name, version, options["memory_bytes"]) if version else name
    came = failed = 0
    limits = {"load_timeout_s": options["timeout_s"], "generate_timeout_s": options["timeout_s"]}
    with Updater(store) as device, device.session(engine, **limits) as session:
        runs = session.bundle.version
        for number in range(options["answers"]):
            try:
                session.generate(PROMPTS[number % len(PROMPTS)], max_tokens=options["max_tokens"])
                came += 1
            except EngineError:
                failed += 1
        print(json.dumps({"version": runs, "came": came, "failed": failed}), flush=True)
        if options["crashes"]:
            ctypes.string_at(0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4]))
