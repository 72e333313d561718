# SPDX-License-Identifier: Apache-2.0
"""Says whether a provider of the compiled modules computes what it should."""
