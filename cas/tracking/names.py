"""Names: what people may call things, and what cas calls a run that nobody named."""

from typing import Final

from cas.errors import InvalidInputError

MAX_NAME: Final = 100
# What revisions are written with (`exp@best`, `name~2`, `ref:path`) cannot stand in a name.
PUNCTUATION: Final = "._-"


def check_name(text: str, what: str) -> str:
    """Return `text` as a valid name of `what`, in composed form; raise InvalidInputError.

    A run's name is one part; other names may have several, separated by `/`.
    """
    if not isinstance(text, str):
        raise InvalidInputError(f"the name of a {what} is text, not {type(text).__name__}")
    name = text if text.isascii() else _composed(text)
    problem = _problem(name, what)
    if problem:
        allowed = f"letters, digits, '.', '_' and '-'{'' if what == 'run' else ', parts by /'}"
        article = "an" if what[0] in "aeiou" else "a"
        told = f"{text!r} cannot name {article} {what}: it {problem}"
        raise InvalidInputError(f"{told} (allowed: {allowed})")
    return name


def make_name(text: str, default: str) -> str:
    """Return the nearest valid name of one part, or `default` when nothing of `text` is left."""
    name = "".join(char if _is_allowed(char) else "-" for char in _composed(text))
    while ".." in name or "--" in name:
        name = name.replace("..", ".").replace("--", "-")
    name = name.lstrip(PUNCTUATION)[:MAX_NAME].rstrip("-.")
    return default if _problem(name, "run") else name


def two_words(random_bytes: bytes) -> str:
    """Return a friendly name like `brave-otter`, chosen by four random bytes."""
    if len(random_bytes) < 4:
        raise InvalidInputError(f"two words take four random bytes, not {len(random_bytes)}")
    adjectives, nouns = _ADJECTIVES.split(), _NOUNS.split()
    first = int.from_bytes(random_bytes[:2], "little") % len(adjectives)
    second = int.from_bytes(random_bytes[2:4], "little") % len(nouns)
    return f"{adjectives[first]}-{nouns[second]}"


def _problem(name: str, what: str) -> str:
    """Say what is wrong with a name, nothing if it is valid."""
    if len(name) > MAX_NAME:
        return f"is longer than {MAX_NAME} characters"
    if not name:
        return "is empty"
    parts = [name] if what == "run" else name.split("/")
    return next((problem for part in parts if (problem := _part_problem(part))), "")


def _part_problem(part: str) -> str:
    bad = next((char for char in part if not _is_allowed(char)), "")
    if bad:
        return f"contains {bad!r}"
    if not part:
        return "has an empty part"
    if not (part[0].isalnum() or part[0] == "_"):
        return f"has a part that starts with {part[0]!r}"
    return "contains '..'" if ".." in part else ""


def _is_allowed(char: str) -> bool:
    return char.isalnum() or char in PUNCTUATION or (not char.isascii() and _is_mark(char))


def _is_mark(char: str) -> bool:
    """Say whether it is a sign that belongs to the letter before it, as vowels of many scripts."""
    import unicodedata

    return unicodedata.category(char).startswith("M")


def _composed(text: str) -> str:
    import unicodedata

    return unicodedata.normalize("NFC", text)


_ADJECTIVES: Final = """
    able agile airy alert amber ample apt azure balmy bold brave breezy bright brisk bronze busy
    calm candid careful cheerful chief clear clever coral cosmic cozy crisp curious dapper
    daring deft eager early earnest easy elegant epic even exact fabled fair famous fancy fast
    fearless festive fine firm fleet fluffy fond frank free fresh friendly frosty gallant gentle
    giant gifted glad gleaming glowing golden good graceful grand grateful great green happy
    hardy hazel hearty helpful honest humble ideal indigo ivory jade jaunty jolly jovial joyful
    keen kind large late lively loyal lucid lucky lunar magic major mellow merry mighty mild
    mint modest neat new nimble noble olive open orange patient peaceful peppy placid plucky
    polite prime proud pure quick quiet rapid rare ready regal robust rosy royal ruby rustic
    sage sandy serene sharp shiny silent silver simple sleek smart smooth snowy snug solar solid
    sound spry stable steady stellar still stout sunny sure swift tall teal tender tidy tranquil
    true trusty upbeat vast velvet vivid warm wise witty young zesty
"""

_NOUNS: Final = """
    acorn albatross alder anchor antelope aspen badger bamboo basil bay beacon beaver beech
    birch bison bluebird breeze bridge brook buffalo canary canyon caribou cedar cello cheetah
    cherry chestnut cinder cloud clover comet condor cormorant cove coyote crane creek cricket
    cypress daisy dawn deer delta dolphin dove dune eagle egret elk elm ember falcon fennel fern
    finch firefly fjord flamingo forest fox galaxy gannet garnet gazelle gecko geyser ginger
    glacier goose grove gull harbor hare harp hawk hazel heath heron hickory hill hollow horizon
    ibex ibis iris island jaguar jasmine jay juniper kestrel kingfisher kite kiwi koala lagoon
    lake lantern larch lark laurel lemur lily linden linnet lion lotus lynx magpie maple marble
    marlin marmot marten meadow meerkat mesa meteor moon moose mountain narwhal nebula nectar
    newt oak ocean ocelot orca orchid oriole osprey otter owl panda panther parrot peach pebble
    pelican penguin peony petrel pheasant pine piper planet plover poppy prairie puffin quail
    quartz rabbit raven reef ridge river robin rowan saffron salmon sequoia shore sparrow spruce
    squirrel star stork summit swallow swan swift tern thistle thrush tiger topaz toucan trout
    tulip tundra turtle valley violet walnut walrus wave willow wolf wombat wren yew zebra
"""
