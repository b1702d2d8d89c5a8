#!/bin/sh
# Run the agent for a store that is set up, as a systemd service: sh install.sh STORE [conditions of `overair device agent`]
set -eu
store=$1
shift
name=overair-agent-$(basename "$store")
overair device status --store "$store" >/dev/null # fails, and says what to do, when the store is not set up
overair device agent --store "$store" "$@" --print-unit >"/etc/systemd/system/$name.service"
systemctl daemon-reload
systemctl enable --now "$name.service"
systemctl --no-pager status "$name.service"
