"""The words that prompts are made of, one list for training and one for the benchmark. All are our own.

The two sides share no topic, keyword, opening, ending, key, name or object (`tests/constraints/test_drawing.py`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Words:
    """One side of the split."""

    topics: tuple[str, ...]
    requests: tuple[str, ...]
    """What is asked about a topic; {} is its place."""
    keywords: tuple[str, ...]
    """Words that an answer is asked to use."""
    avoided: tuple[str, ...]
    """Frequent words that an answer is asked to do without."""
    openings: tuple[str, ...]
    endings: tuple[str, ...]
    keys: tuple[str, ...]
    """Keys of a JSON object."""
    names: tuple[str, ...]
    objects: tuple[str, ...]
    """Things that somebody of a passage has a number of."""
    places: tuple[str, ...]


# fmt: off
TRAINING = Words(
    topics=(
        "a walk in the rain", "baking bread", "a small garden", "learning to swim", "the night sky", "riding a bicycle",
        "a train journey", "keeping bees", "old maps", "a winter morning", "playing chess", "a busy market",
        "mountain villages", "repairing shoes", "a school library", "fishing at a lake", "lighthouses",
        "growing tomatoes",
        "painting a fence", "a family dinner", "street music", "a quiet office", "moving to a new town",
        "a long flight",
        "collecting stamps", "making soup", "a football match", "wooden toys", "a broken clock", "spring cleaning",
    ),
    requests=(
        "Write about {}.", "Tell me something about {}.", "Describe {}.", "Explain what people like about {}.",
        "Give a beginner some advice on {}.", "Say why {} can be hard.",
    ),
    keywords=(
        "window", "river", "patience", "lantern", "silver", "bridge", "promise", "harvest", "mirror", "blanket",
        "compass", "thunder", "pocket", "meadow", "ladder", "candle", "stranger", "ribbon", "anchor", "feather",
        "basket", "whistle", "copper", "velvet", "puzzle", "shadow", "kettle", "orchard", "saddle", "pebble",
    ),
    avoided=("very", "people", "important", "good", "time", "also", "great", "make"),
    openings=(
        "Here is my answer", "First of all", "To begin with", "Let me think", "In my view", "As you may know",
        "On a calm day", "Dear reader", "The short answer is", "Most mornings",
    ),
    endings=(
        "That is all.", "I hope this helps.", "Thank you for asking.", "What do you think?", "The end.",
        "Have a nice day.", "So it goes.", "Let me know.",
    ),
    keys=("title", "summary", "place", "mood", "reason", "season", "author", "color", "tool", "tip"),
    names=("Mara", "Otto", "Lena", "Igor", "Paula", "Felix", "Nina", "Hugo", "Rosa", "Emil", "Clara", "Bruno"),
    objects=("boats", "clocks", "goats", "chairs", "books", "lamps", "kites", "coins", "drums", "tents"),
    places=("the harbour", "the old mill", "a farm", "the museum", "a workshop", "the station", "a hill", "the square"),
)

HELD_OUT = Words(
    topics=(
        "a desert road", "sewing a coat", "watching birds", "a power cut", "learning the violin", "a ferry ride",
        "pottery", "a thunderstorm", "a village fair", "packing a suitcase", "an empty beach", "a humming robot",
        "planting a tree", "a crowded bus", "a letter from abroad", "roasting coffee",
    ),
    requests=(
        "Write a few lines about {}.", "What comes to your mind about {}?", "Share your thoughts on {}.",
        "Introduce a child to {}.",
    ),
    keywords=(
        "marble", "signal", "courage", "button", "horizon", "cellar", "needle", "garlic", "tunnel", "whisper",
        "helmet", "cotton", "island", "hammer", "pepper", "valley",
    ),
    avoided=("many", "really", "often", "new", "home", "life"),
    openings=("Imagine this", "Years ago", "My friend", "To be honest", "Believe it or not", "Every now and then"),
    endings=("And that was that.", "Good luck.", "Is it not?", "See you soon.", "Nothing more to say."),
    keys=("name", "origin", "material", "weather", "sound", "advice", "price", "size"),
    names=("Tomas", "Agnes", "Viktor", "Selma", "Jonas", "Greta", "Oskar", "Hanna"),
    objects=("horses", "bottles", "ropes", "stones", "hats", "bells", "wheels", "spoons"),
    places=("the castle", "an inn", "the bakery", "a cave", "the theatre", "an island"),
)

# fmt: on
NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
"""Numbers of things in a passage, beginning with 2; neither side owns them."""
FIRST_NUMBER = 2
