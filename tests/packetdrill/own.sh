#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# own.sh ADAPTER: run the project's own scripts; exit 77 (skipped) without packetdrill or root.
here=$(cd "$(dirname "$0")" && pwd)
ADAPTER=$1 exec "$here/run.sh" "$here/scripts"
