"""Widths of text, without a font: the advance of each character in the fonts that a reader may have.

Text is placed by the metrics that Helvetica, Arial, Liberation Sans and Nimbus Sans share, and room is kept
for DejaVu Sans, the widest font of the stack, so that no label is cut or overlaps another in either.
"""

from functools import lru_cache

CHARACTERS = "".join(map(chr, range(32, 127))) + "×·−–—→²³µ≥≤±…"
# What no table has is taken as wide as the widest letters.
_UNKNOWN = 1000


def _table(widths: str) -> dict[str, int]:
    return dict(zip(CHARACTERS, map(int, widths.split()), strict=True))


# Thousandths of the font size, read from the fonts' own hmtx tables.
_HELVETICA = _table(
    "278 278 355 556 556 889 667 191 333 333 389 584 278 333 278 278 556 556 556 556 556 556 556 556 556 "
    "556 278 278 584 584 584 556 1015 667 667 722 722 667 611 778 722 278 500 667 556 833 722 778 667 778 "
    "722 667 611 722 667 944 667 667 611 278 278 278 469 556 333 556 556 500 556 556 278 556 556 222 222 "
    "500 222 833 556 556 556 556 333 500 278 556 500 722 500 500 500 334 260 334 584 584 278 584 556 1000 "
    "1000 333 333 576 549 549 549 1000 "
)
_HELVETICA_BOLD = _table(
    "278 333 474 556 556 889 722 238 333 333 389 584 278 333 278 278 556 556 556 556 556 556 556 556 556 "
    "556 333 333 584 584 584 611 975 722 722 722 722 667 611 778 722 278 556 722 611 833 722 778 667 778 "
    "722 667 611 722 667 944 667 667 611 333 278 333 584 556 333 556 611 556 611 556 333 611 611 278 278 "
    "556 278 889 611 611 611 611 389 556 333 611 556 778 556 556 500 389 280 389 584 584 278 584 556 1000 "
    "1000 333 333 576 549 549 549 1000 "
)
_DEJAVU = _table(
    "318 401 460 838 636 950 780 275 390 390 500 838 318 361 318 337 636 636 636 636 636 636 636 636 636 "
    "636 337 337 838 838 838 531 1000 684 686 698 770 632 575 775 752 295 295 656 557 863 748 787 603 787 "
    "695 635 611 732 684 989 685 611 685 390 337 390 838 500 500 613 635 550 635 615 352 635 634 278 278 "
    "579 278 974 634 612 635 635 411 521 392 634 592 818 592 592 525 636 337 636 838 838 318 838 500 1000 "
    "838 401 401 636 838 838 838 1000 "
)
_DEJAVU_BOLD = _table(
    "348 456 521 838 696 1002 872 306 457 457 523 838 380 415 380 365 696 696 696 696 696 696 696 696 696 "
    "696 400 400 838 838 838 580 1000 774 762 734 830 683 683 821 837 372 372 775 637 995 837 850 733 850 "
    "770 720 682 812 774 1103 771 724 725 457 365 457 838 500 500 675 716 593 716 678 435 716 712 343 343 "
    "665 343 1042 712 687 716 716 493 595 478 712 652 924 645 652 582 712 365 712 838 838 380 838 500 "
    "1000 838 438 438 736 838 838 838 1000 "
)


@lru_cache(maxsize=8192)
def width(text: str, size: float, bold: bool = False) -> float:
    """Width in px with the metrics of Helvetica, by which text is placed.

    Args:
        text: one line.
        size: font size in px.
        bold: whether it is set bold.
    """
    table = _HELVETICA_BOLD if bold else _HELVETICA
    return sum(table.get(letter, _UNKNOWN) for letter in text) * size / 1000


@lru_cache(maxsize=8192)
def reserved(text: str, size: float, bold: bool = False) -> float:
    """Width in px that is kept free for the text: the wider of Helvetica's and DejaVu Sans's."""
    table = _DEJAVU_BOLD if bold else _DEJAVU
    wide = sum(table.get(letter, _UNKNOWN) for letter in text) * size / 1000
    return max(wide, width(text, size, bold))
