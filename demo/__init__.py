# SPDX-License-Identifier: GPL-3.0-or-later
"""The main job on one machine without root: throwaway servers, real modules, an independent comparison."""
