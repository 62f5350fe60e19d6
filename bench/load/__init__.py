"""The clients: each is shown, in `calibration`, not to be what limits a figure."""
