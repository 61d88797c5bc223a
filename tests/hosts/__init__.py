# SPDX-License-Identifier: GPL-3.0-or-later
"""What the scenarios of molecule/ test on more than one kind of host."""
