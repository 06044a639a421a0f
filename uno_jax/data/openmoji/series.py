"""Which OpenMoji drawings show the same thing in another colour, direction, number, phase or state."""

# ruff: noqa: SIM905 - long lists of words are easier to read and to change as text

from __future__ import annotations

from dataclasses import dataclass

from uno_jax.data.openmoji.words import HOURS


@dataclass(frozen=True)
class Series:
    """Drawings that show the same thing in different values, and instructions with `{value}`."""

    kind: str
    values: dict[str, str]
    """Stem of the drawing, without a closing FE0F and without tones -> its value."""
    instructions: tuple[str, ...]
    toned: bool = False
    """Whether the drawings come in skin tones too; a pair then keeps the tone."""


_FLAG_COLOURS = ("red", "blue", "orange", "yellow", "green", "purple", "brown")
_COLOUR_CODES = dict(zip(_FLAG_COLOURS, ("1F7E5", "1F7E6", "1F7E7", "1F7E8", "1F7E9", "1F7EA", "1F7EB"), strict=True))
_PAINT = ("make the {thing} {value}", "change the colour of the {thing} to {value}", "paint the {thing} {value}")
_POINT = ("make it point {value}", "turn the {thing} so that it points {value}", "let the {thing} point {value}")


def _paint(thing: str, stems: dict[str, str]) -> Series:
    texts = tuple(text.replace("{thing}", thing) for text in _PAINT)
    return Series("colour", stems, texts)


def _point(thing: str, stems: dict[str, str], toned: bool = False) -> Series:
    return Series("direction", stems, tuple(text.replace("{thing}", thing) for text in _POINT), toned)


SERIES = (
    Series(
        "clock",
        {
            **{f"{0x1F550 + hour:X}": f"{word} o'clock" for hour, word in enumerate(HOURS)},
            **{f"{0x1F55C + hour:X}": f"half past {word}" for hour, word in enumerate(HOURS)},
        },
        ("set the clock to {value}", "move the hands of the clock to {value}", "make the clock show {value}"),
    ),
    _paint(
        "heart",
        {
            "2764": "red",
            "1F9E1": "orange",
            "1F49B": "yellow",
            "1F49A": "green",
            "1F499": "blue",
            "1FA75": "light blue",
            "1F49C": "purple",
            "1FA77": "pink",
            "1F90E": "brown",
            "1F5A4": "black",
            "1FA76": "grey",
            "1F90D": "white",
        },
    ),
    _paint(
        "circle",
        {
            "1F534": "red",
            "1F7E0": "orange",
            "1F7E1": "yellow",
            "1F7E2": "green",
            "1F535": "blue",
            "1F7E3": "purple",
            "1F7E4": "brown",
            "26AB": "black",
            "26AA": "white",
        },
    ),
    _paint("square", {code: colour for colour, code in _COLOUR_CODES.items()} | {"2B1B": "black", "2B1C": "white"}),
    _paint("cover of the book", {"1F4D5": "red", "1F4D7": "green", "1F4D8": "blue", "1F4D9": "orange"}),
    _paint("large diamond", {"1F536": "orange", "1F537": "blue"}),
    _paint("small diamond", {"1F538": "orange", "1F539": "blue"}),
    _paint("apple", {"1F34E": "red", "1F34F": "green"}),
    _paint("question mark", {"2753": "red", "2754": "grey"}),
    _paint("exclamation mark", {"2757": "red", "2755": "grey"}),
    _paint("flag", {f"1F3F3-FE0F-200D-{code}": f"light {colour}" for colour, code in _COLOUR_CODES.items()}),
    _paint("flag", {f"1F3F4-FE0F-200D-{code}": f"strong {colour}" for colour, code in _COLOUR_CODES.items()}),
    _paint("jam in the jar", {f"1FAD9-200D-{code}": colour for colour, code in _COLOUR_CODES.items()}),
    _paint(
        "hexagon",
        {f"2B21-FE0F-200D-{code}": colour for colour, code in _COLOUR_CODES.items()}
        | {"2B21": "white", "2B22": "black"},
    ),
    *(
        _paint(f"chess {piece}", {f"{0x2654 + index:X}": "white", f"{0x265A + index:X}": "black"})
        for index, piece in enumerate(("king", "queen", "rook", "bishop", "knight"))
    ),
    Series(
        "digit",
        {f"{0x30 + digit:04X}-FE0F-20E3": str(digit) for digit in range(10)},
        ("change the number to {value}", "make the key show {value}", "replace the digit by {value}"),
    ),
    _point(
        "arrow",
        {
            "2B06": "up",
            "2197": "to the upper right",
            "27A1": "to the right",
            "2198": "to the lower right",
            "2B07": "down",
            "2199": "to the lower left",
            "2B05": "to the left",
            "2196": "to the upper left",
        },
    ),
    _point("chevron", {"1F53C": "up", "1F53D": "down"}),
    _point("triangle", {"25B6": "to the right", "25C0": "to the left"}),
    _point("double arrow", {"23EB": "up", "23EC": "down", "23E9": "to the right", "23EA": "to the left"}),
    _point("finger", {"1F446": "up", "1F447": "down", "1F448": "to the left", "1F449": "to the right"}, toned=True),
    _point("fist", {"1F91B": "to the left", "1F91C": "to the right"}, toned=True),
    _point("open hand", {"1FAF1": "to the right", "1FAF2": "to the left"}, toned=True),
    _point("pushing hand", {"1FAF7": "to the left", "1FAF8": "to the right"}, toned=True),
    _point("thumb", {"1F44D": "up", "1F44E": "down"}, toned=True),
    _point("palm", {"1FAF3": "down", "1FAF4": "up"}, toned=True),
    _point("red triangle", {"1F53A": "up", "1F53B": "down"}),
    Series(
        "direction",
        {"1F50D": "left", "1F50E": "right"},
        ("tilt the magnifying glass to the {value}", "flip the magnifying glass so that its lens is on the {value}"),
    ),
    Series(
        "direction",
        {"1FBC7": "left", "1FBC8": "right"},
        ("make the stick figure lean to the {value}", "let the figure lean {value} instead"),
    ),
    *(
        Series(
            "direction",
            {left: "left", right: "right"},
            (
                f"make the {{value}} half of the {thing} black",
                f"swap the colours: the {{value}} half of the {thing} is black",
            ),
        )
        for thing, left, right in (
            ("circle", "25D0", "25D1"),
            ("square", "25E7", "25E8"),
            ("triangle", "25ED", "25EE"),
            ("star", "2BEA", "2BEB"),
        )
    ),
    Series(
        "phase",
        {
            "1F311": "new moon",
            "1F312": "waxing crescent",
            "1F313": "first quarter",
            "1F314": "waxing gibbous moon",
            "1F315": "full moon",
            "1F316": "waning gibbous moon",
            "1F317": "last quarter",
            "1F318": "waning crescent",
        },
        ("show the moon as a {value}", "change the phase of the moon to {value}", "turn it into a {value}"),
    ),
    Series(
        "amount",
        {"1F507": "muted", "1F508": "low", "1F509": "medium", "1F50A": "high"},
        ("set the volume of the speaker to {value}", "change the loudspeaker's volume to {value}"),
    ),
    Series(
        "amount",
        {"1F947": "first", "1F948": "second", "1F949": "third"},
        ("make it the medal for {value} place", "change the medal to {value} place"),
    ),
)
# Two states of one thing: source, target, what leads from the one to the other, and back.
STATES = (
    ("1F512", "1F513", "open the lock", "close the lock"),
    ("1F50B", "1FAAB", "drain the battery", "charge the battery"),
    ("1F514", "1F515", "silence the bell", "switch the bell on again"),
    ("1F4C1", "1F4C2", "open the folder", "close the folder"),
    ("1F4EA", "1F4EB", "raise the flag of the mailbox", "lower the flag of the mailbox"),
    ("1F4ED", "1F4EC", "raise the flag of the mailbox", "lower the flag of the mailbox"),
    ("1F4EB", "1F4EC", "open the mailbox", "close the mailbox"),
    ("1F4EA", "1F4ED", "open the mailbox", "close the mailbox"),
    ("2764", "1F494", "break the heart", "make the heart whole again"),
    ("2764", "2764-FE0F-200D-1F525", "set the heart on fire", "put out the fire on the heart"),
    ("2764", "2764-FE0F-200D-1FA79", "put a bandage on the heart", "take the bandage off the heart"),
    ("2764", "1F498", "shoot an arrow through the heart", "pull the arrow out of the heart"),
    ("1F339", "1F940", "let the flower wilt", "make the flower bloom again"),
    ("2601", "1F327", "let it rain from the cloud", "stop the rain"),
    ("2601", "1F328", "let it snow from the cloud", "stop the snow"),
    ("2601", "1F329", "add lightning to the cloud", "remove the lightning"),
    ("1F327", "26C8", "add lightning to the rain", "remove the lightning and keep the rain"),
    ("2600", "1F324", "put a small cloud in front of the sun", "remove the cloud"),
    ("1F324", "1F325", "make the cloud in front of the sun larger", "make the cloud in front of the sun smaller"),
    ("1F325", "1F326", "let it rain from the cloud", "stop the rain"),
    ("2602", "2614", "let it rain on the umbrella", "stop the rain"),
    ("2602", "1F302", "close the umbrella", "open the umbrella"),
    ("26C4", "2603", "let it snow around the snowman", "stop the snow around the snowman"),
    ("231B", "23F3", "turn the hourglass so that sand is running", "let all the sand run through"),
    ("1F333", "1FABE", "remove all the leaves of the tree", "let leaves grow on the tree"),
    ("1FAB9", "1FABA", "put eggs into the nest", "take the eggs out of the nest"),
    ("1F3E0", "1F3E1", "add a garden to the house", "remove the garden"),
    ("1F3E0", "1F3DA", "let the house fall into ruin", "repair the house"),
    ("1F4F7", "1F4F8", "let the camera flash", "switch off the flash of the camera"),
    ("1F37D", "1F374", "take away the plate", "put a plate between knife and fork"),
    ("1F4C8", "1F4C9", "make the chart go down", "make the chart go up"),
    ("1F505", "1F506", "make the light brighter", "dim the light"),
    ("1F48C", "2709", "remove the heart from the letter", "put a heart on the letter"),
    ("1F6EB", "1F6EC", "let the airplane land instead", "let the airplane take off instead"),
    ("1F3F3", "1F3F4", "make the flag black", "make the flag white"),
    ("1F408", "1F408-200D-2B1B", "make the cat black", "make the cat orange"),
    ("1F426", "1F426-200D-2B1B", "make the bird black", "make the bird brown"),
    ("1F415", "1F415-200D-1F9BA", "put a vest on the dog", "take the vest off the dog"),
    ("1F43B", "1F43B-200D-2744-FE0F", "turn the bear into a polar bear", "turn the polar bear into a brown bear"),
    ("1F42A", "1F42B", "give the camel a second hump", "leave the camel only one hump"),
    ("1F423", "1F424", "take the chick out of its egg", "put the chick into its egg"),
    ("1F424", "1F425", "turn the chick to the front", "turn the chick to the side"),
    ("1F31D", "1F31A", "make the full moon with a face dark", "make the moon with a face bright"),
    ("1F648", "1F649", "let the monkey cover its ears", "let the monkey cover its eyes"),
    ("1F649", "1F64A", "let the monkey cover its mouth", "let the monkey cover its ears"),
    ("1F648", "1F64A", "let the monkey cover its mouth", "let the monkey cover its eyes"),
    ("1F7E2", "1F7E9", "turn the circle into a square", "turn the square into a circle"),
    ("1F534", "1F7E5", "turn the circle into a square", "turn the square into a circle"),
    ("1F535", "1F7E6", "turn the circle into a square", "turn the square into a circle"),
    ("1F37A", "1F37B", "add a second mug of beer and clink", "show only one mug of beer"),
    ("1F382", "1F370", "show a single slice of cake", "show the whole birthday cake"),
)
# Faces whose expression can be exchanged: yellow faces, then cats.
FACES = (
    "1F600 1F603 1F604 1F601 1F606 1F605 1F923 1F602 1F642 1F643 1FAE0 1F609 1F60A 1F607 1F970 1F60D 1F929 1F618 1F617 "
    "1F61A 1F619 1F972 1F60B 1F61B 1F61C 1F92A 1F61D 1F911 1F917 1F92D 1FAE2 1FAE3 1F92B 1F914 1FAE1 1F910 1F928 1F610 "
    "1F611 1F636 1FAE5 1F60F 1F612 1F644 1F62C 1F925 1F60C 1F614 1F62A 1F924 1F634 1F637 1F912 1F915 1F922 1F92E 1F927 "
    "1F974 1F635 1F920 1F973 1F978 1F60E 1F913 1F9D0 1F615 1FAE4 1F61F 1F641 1F62E 1F62F 1F632 1F633 1F97A 1F979 1F626 "
    "1F627 1F628 1F630 1F625 1F622 1F62D 1F631 1F616 1F623 1F61E 1F613 1F629 1F62B 1F971 1F624 1F620 1F92C"
).split()
CATS = "1F63A 1F638 1F639 1F63B 1F63C 1F63D 1F640 1F63F 1F63E".split()
