"""Words for OpenMoji's names: where the plain name is not natural English, and how to say the same in other words.

Activities follow the person: `a man running`. In couples, `{s}` marks where a skin tone goes (" with dark skin").
"""

# ruff: noqa: SIM905 - long lists of words are easier to read and to change as text

import re

# What a person does: the name's words -> (in the prompt, in other words).
ACTIVITIES = {
    "": ("", "seen from the shoulders up"),
    "running": ("running", "out for a jog"),
    "walking": ("walking", "taking a stroll on foot"),
    "kneeling": ("kneeling", "down on both knees"),
    "standing": ("standing", "upright and still"),
    "surfing": ("surfing", "riding a wave on a board"),
    "swimming": ("swimming", "doing the front crawl in the water"),
    "lifting weights": ("lifting weights", "holding a barbell overhead"),
    "golfing": ("playing golf", "swinging a golf club"),
    "biking": ("riding a bike", "cycling"),
    "mountain biking": ("riding a mountain bike", "cycling up a hill"),
    "rowing boat": ("rowing a boat", "pulling the oars on the water"),
    "bouncing ball": ("bouncing a ball", "playing basketball"),
    "cartwheeling": ("doing a cartwheel", "turning upside down on both hands"),
    "juggling": ("juggling", "throwing balls in the air and catching them"),
    "playing water polo": ("playing water polo", "about to throw a ball in the pool"),
    "playing handball": ("playing handball", "jumping to throw a ball"),
    "climbing": ("climbing", "going up a steep rock"),
    "fencing": ("fencing", "with a sword and a mask, ready to duel"),
    "in lotus position": ("in the lotus position", "meditating with crossed legs"),
    "in steamy room": ("in a steamy room", "in a sauna"),
    "dancing": ("dancing", "moving to the music"),
    "bowing": ("bowing deeply", "bent down to apologise"),
    "facepalming": ("facepalming", "hiding the face behind one hand"),
    "shrugging": ("shrugging", "who does not know, with raised shoulders"),
    "frowning": ("frowning", "with a sad mouth"),
    "pouting": ("pouting", "looking sulky and displeased"),
    "gesturing NO": ("with crossed arms that say no", "forming a big X with both arms"),
    "gesturing OK": ("with arms above the head that say OK", "forming a big circle with both arms"),
    "tipping hand": ("tipping one hand", "with an open hand beside the shoulder"),
    "raising hand": ("raising a hand", "with one arm up to ask something"),
    "getting massage": ("getting a head massage", "relaxing while two hands rub the temples"),
    "getting haircut": ("getting a haircut", "at the hairdresser, with scissors close by"),
    "feeding baby": ("feeding a baby", "giving a bottle to an infant"),
    "wearing turban": ("wearing a turban", "with cloth wrapped around the head"),
    "with veil": ("wearing a veil", "dressed for a wedding, with a bridal veil"),
    "in tuxedo": ("in a tuxedo", "in a black suit with a bow tie"),
    "with skullcap": ("wearing a skullcap", "with a small round cap"),
    "with white cane": ("with a white cane", "who is blind, feeling the way with a stick"),
    "in motorized wheelchair": ("in a motorized wheelchair", "sitting in an electric wheelchair"),
    "in manual wheelchair": ("in a manual wheelchair", "rolling along in a wheelchair"),
    "in suit levitating": ("in a suit floating in the air", "in business clothes, hovering above the ground"),
    "taking bath": ("taking a bath", "washing in a bathtub"),
    "in bed": ("lying in bed", "asleep under a blanket"),
    "with headscarf": ("wearing a headscarf", "whose hair is covered by a scarf"),
    "with crown": ("wearing a crown", "of royal rank, with gold on the head"),
}
# Roles that take `male` and `female`: name -> in other words, after `a gentleman`, `a lady`, `somebody`.
PROFESSIONS = {
    "farmer": "who works in the fields, with a straw hat",
    "cook": "who works in a kitchen, with a chef's hat",
    "student": "at graduation, with a square cap",
    "singer": "on stage with a microphone",
    "artist": "who paints, with brush and palette",
    "teacher": "in front of a blackboard",
    "factory worker": "who works in a factory",
    "technologist": "who works at a laptop",
    "office worker": "who works in an office",
    "mechanic": "who repairs machines, with a wrench",
    "scientist": "in a laboratory",
    "astronaut": "in a space suit",
    "firefighter": "who puts out fires, in a helmet",
    "health worker": "in a doctor's coat, with a stethoscope",
    "judge": "in a court of law",
    "pilot": "who flies planes, in uniform",
    "police officer": "in police uniform",
    "construction worker": "on a building site, in a hard hat",
    "guard": "in guard's uniform, with a tall black hat",
    "detective": "with a magnifying glass, looking for clues",
    "superhero": "in a hero's costume with a cape",
    "supervillain": "in an evil villain's costume",
    "mage": "who casts spells, in a wizard's hat",
    "fairy": "with magic wings",
    "vampire": "with pointed teeth, dressed as a vampire",
    "elf": "with pointed ears, like an elf",
    "genie": "who came out of a magic lamp",
    "zombie": "who is undead, with green skin",
    "person with crown": "of royal rank, with gold on the head",
}
# Couples by base: the prompt and other words. `{who}` is `two men`, `a woman and a man`, ..
COUPLES = {
    "holding hands": ("{who}{s} holding hands", "{who}{s} standing hand in hand"),
    "kissing": ("{who}{s} kissing, with a heart between them", "{who}{s} about to kiss under a red heart"),
    "in love": ("{who}{s} with a heart between them", "{who}{s} in love, side by side"),
    "with bunny ears": ("{who}{s} wearing bunny ears", "{who}{s} dancing in rabbit costumes"),
    "wrestling": ("{who}{s} wrestling", "{who}{s} grappling in a fight"),
    "handshake": ("{who}{s} shaking", "a handshake between {who}{s}"),
}
HOURS = "one two three four five six seven eight nine ten eleven twelve".split()
PLURALS = frozenset(("jeans", "shorts", "briefs", "sunglasses", "goggles", "eyes"))
SINGULARS = frozenset(
    "compass dress harp glass cactus bus lens chess cross canvas gas rhinoceros hippopotamus octopus asparagus walrus "
    "platypus tennis toothless mattress Cyprus trolleybus minibus lotus hibiscus business iris".split()
)
NO_ARTICLE = frozenset(
    "bacon butter salt ice garlic broccoli spaghetti sushi oden dango bread popcorn yarn thread soap sake custard fog "
    "fire dna wood coral mate".split()
) | frozenset(("cooked rice", "curry rice", "green salad", "canned food", "drop of blood"))
WITH_THE = frozenset(
    (
        "Bahamas",
        "Netherlands",
        "Philippines",
        "Maldives",
        "Gambia",
        "Comoros",
        "Seychelles",
        "Vatican City",
        "Dominican Republic",
        "Central African Republic",
        "Czech Republic",
        "European Union",
        "United States",
        "United Kingdom",
        "sun",
        "milky way",
        "recycling symbol",
        "transgender symbol",
        "medical symbol",
        "atom symbol",
        "peace symbol",
    )
)
# Singular nouns that names leave without an article after `with`, `in` or `on`.
NEEDS_ARTICLE = frozenset(
    "monocle spoon straw garden slash thermometer tear halo head-bandage cap umbrella speech swirl handle plate cork "
    "wind clothespin check lowered raised ribbon leaf medical cowboy wry diagonal finger ballot".split()
)
UNWANTED_KEYWORDS = frozenset(
    "phallic penis unded vegatable symbol activity entertainment nature color women men male female man woman human "
    "person people shit crap ass boobs fuck sexy porn idaho photo large geometric butt bottom harambe hipster mao "
    "londoneye gender neutral dito medio body golf wifi ang lai chinese asian".split()
)
# Old names that are not English, or say something else than the picture shows.
UNWANTED_ALIASES = re.compile(
    r"lower left|no mouth|cold sweat|mens room|womans|\bmans|workers|roll eyes|scream cat|stuck out"
    r"|sun with small cloud"
    r"|white sun|frame with picture|cloud with tornado|heavy|black joker|white frowning|three button"
)
