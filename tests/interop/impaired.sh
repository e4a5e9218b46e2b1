#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Bytes stay right on a wire that loses, reorders and delays; then on one that also duplicates and corrupts.
. "$(dirname "$0")/lib.sh" || exit 1
need_programs nginx curl ip
lab_init "$ISOSOCK_BUILD"
need_tap
www=$lab_tmp/www
random_file "$www/page" 600
random_file "$www/file" 4M
random_file "$lab_tmp/upload" 2M
must "the stack starts" lab_tap_stack --port "0,impair=$1"
must "nginx starts" lab_nginx 10.66.0.2 80
url=http://10.66.0.2
expect "a page" same_fetched $url/page "$www/page"
expect "a file of 4 MiB" same_fetched $url/file "$www/file"
expect "PUT of 2 MiB" same_put "$lab_tmp/upload" $url/up/upload "$www/up/upload"

something_was_lost()
{
    lab_tool stats | grep -qE '^impair\.[a-z_]*(loss|lost|drop)'
}
expect "the wire was bad, say the counters" something_was_lost
finish
