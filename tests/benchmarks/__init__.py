# SPDX-License-Identifier: GPL-3.0-or-later
"""What `make bench` measures, and how."""
