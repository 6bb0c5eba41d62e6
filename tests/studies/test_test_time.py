"""Crops, scales and ensembles: averages by hand, the verdict on made-up errors, and a tiny run on digits."""

from convatlas.studies.learning.test_time import protocols

SMALL = {
    "data": "digits",
    "images": 60,
    "test_images": 20,
    "px": 8,
    "seeds": 2,
    "epochs": 1,
    "members": 2,
    "scales": (256, 288, 336),
}


def test_scales_are_in_proportion_to_the_crop() -> None:
    # 256, 288 and 320 px for crops of 224 are 37, 41 and 46 for crops of 32.
    shown = protocols(32, (256, 288, 320))
    assert {name: protocol.scales for name, protocol in shown.items()} == {
        "1 crop": (41,),
        "10 crops": (41,),
        "dense": (41,),
        "dense, 3 scales": (37, 41, 46),
    }
