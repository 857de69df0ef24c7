"""Boards reached over ssh: their inventory, and measuring a bundle on one."""
