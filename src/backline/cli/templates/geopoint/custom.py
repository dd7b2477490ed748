"""A geo point model: where a vehicle will be, from where it is, its course and its speed."""

from math import cos, pi, radians, sin

EARTH_METRES = 6_371_000


def load_model(code_dir):
    """Return how many seconds to look ahead; Backline hands it to `score` as `model`."""
    return 600


def score(data, model, **kwargs):
    """Return the columns latitude and longitude, in degrees, one row for each row of `data`."""
    metres = data["speed"] * model
    north = metres * data["course"].map(lambda degrees: cos(radians(degrees)))
    east = metres * data["course"].map(lambda degrees: sin(radians(degrees)))
    per_radian = EARTH_METRES * data["latitude"].map(lambda degrees: cos(radians(degrees)))
    latitude = data["latitude"] + north / EARTH_METRES * 180 / pi
    longitude = data["longitude"] + east / per_radian * 180 / pi
    return latitude.to_frame("latitude").assign(longitude=longitude)
