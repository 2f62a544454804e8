#!/bin/sh
echo "Coverage is not set up for this project's offline Bazel build." >&2
exit 1
