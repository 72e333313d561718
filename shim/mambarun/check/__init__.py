# SPDX-License-Identifier: Apache-2.0
"""check - the command mambarun-check: what of this machine, this Python and its
packages helps or hinders the modules that mambarun supplies. Reads files and asks the
driver in another process; imports no torch unless it is to run something.
"""
