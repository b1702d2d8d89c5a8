"""A `llama-server` where none is installed: the server inside xllamacpp, which answers the same requests.

stand_in_server.py --model FILE --ctx-size N [--check-tensors] [--chat-template-file FILE] …
"""

import argparse
import os
import sys
import threading
from pathlib import Path


def write_stand_in(folder: Path) -> Path:
    """Write a program that `OVERAIR_LLAMA_SERVER` can name."""
    program = folder / "llama-server"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    return program


def main() -> None:
    from xllamacpp import CommonParams, Server

    parser = argparse.ArgumentParser()
    parser.add_argument("--version", action="store_true")
    parser.add_argument("--model", default="")
    parser.add_argument("--ctx-size", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--check-tensors", action="store_true")
    parser.add_argument("--chat-template-file", type=Path)
    options, _ = parser.parse_known_args()
    if options.version:
        print("version: 1 (stand-in)", file=sys.stderr)
        return
    params = CommonParams()
    params.model.path = options.model
    params.n_ctx = options.ctx_size
    params.cpuparams.n_threads = options.threads
    params.check_tensors = options.check_tensors
    if options.chat_template_file is not None:
        params.chat_template = options.chat_template_file.read_text(encoding="utf-8")
    params.warmup = False
    params.verbosity = 1
    params.api_keys = [os.environ["LLAMA_API_KEY"]]
    try:
        server = Server(params)
    except RuntimeError:
        sys.exit(1)  # llama.cpp has said why
    print(f"main: server is listening on {server.listening_address}", file=sys.stderr, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
