# SPDX-License-Identifier: Apache-2.0
"""ops - one module per op: its params structs as rows, and upstream's functions."""
