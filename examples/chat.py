"""A chat that uses xllamacpp, and keeps its model current: python examples/chat.py MANIFEST_URL TIER"""

import sys
import threading

import xllamacpp

import overair


def keep_current(updater: overair.Updater) -> None:
    try:
        updater.update()  # the next start swaps it in
    except overair.OverairError as error:
        print(f"no update now: {error}", file=sys.stderr)


def main(url: str, tier: str) -> None:
    updater = overair.Updater("chat-models", url=url, tier=tier, app_version="1.0.0", insecure=True)
    if updater.status().current is None:
        updater.update()  # the first model has to come before the first answer
    threading.Thread(target=keep_current, args=[updater], daemon=True).start()
    params = xllamacpp.CommonParams()
    with updater.session() as session:
        params.model.path = str(session.bundle.model)
        try:
            server = xllamacpp.Server(params)
        except RuntimeError as error:
            session.fail(f"does not load: {error}")
            sys.exit("the new model does not load: start again to get the previous one")
        for line in sys.stdin:
            question = {"messages": [{"role": "user", "content": line.strip()}], "max_tokens": 64}
            print(server.handle_chat_completions(question)["choices"][0]["message"]["content"], flush=True)
            session.confirm()  # it answers: keep it


if __name__ == "__main__":
    main(*sys.argv[1:])
