"""Makes and measures the starter model: a tiny SD1.x-layout model of coloured shapes. See README.md beside this file."""
