"""Words of names: how table and column names are cut, compared, and what some words say.

Lists hold general vocabulary of schemas; what they decide is always checked against the data.
"""

from __future__ import annotations

import functools
import re

ID_WORDS = frozenset({"id", "ids", "key", "code", "no", "num", "number", "nr", "uuid", "guid", "pk", "fk", "sk", "ref"})
"""Words at the end of a name that say it identifies something."""

PERSON_ROLES = frozenset(
    [
        "agent",
        "approver",
        "assignee",
        "author",
        "boss",
        "buyer",
        "clerk",
        "creator",
        "customer",
        "doctor",
        "editor",
        "employee",
        "manager",
        "member",
        "mentor",
        "moderator",
        "operator",
        "owner",
        "parent",
        "person",
        "player",
        "poster",
        "provider",
        "rep",
        "representative",
        "reviewer",
        "salesperson",
        "seller",
        "sender",
        "student",
        "superior",
        "supervisor",
        "teacher",
        "tutor",
        "user",
        "worker",
        "writer",
    ]
)
"""Roles that a person plays; a key of such a name leads to a table of people."""

PEOPLE = frozenset(
    [
        "account",
        "contact",
        "customer",
        "employee",
        "member",
        "people",
        "person",
        "personnel",
        "player",
        "staff",
        "student",
        "teacher",
        "user",
        "worker",
    ]
)
"""Tables of people."""

SELF_REFERENCES = frozenset(
    [
        "ancestor",
        "boss",
        "child",
        "evolved",
        "next",
        "original",
        "parent",
        "predecessor",
        "preceding",
        "previous",
        "reply",
        "report",
        "superior",
        "successor",
        "supervisor",
    ]
)
"""Words of a key that leads to another row of its own table."""

CREATION_WORDS = {
    **dict.fromkeys(
        [
            "created",
            "create",
            "creation",
            "inserted",
            "insert",
            "added",
            "registered",
            "registration",
            "signup",
            "joined",
        ],
        1.0,
    ),
    **dict.fromkeys(
        [
            "occurred",
            "event",
            "posted",
            "placed",
            "purchased",
            "ordered",
            "observed",
            "observation",
            "recorded",
            "issued",
        ],
        0.9,
    ),
    **dict.fromkeys(
        [
            "start",
            "started",
            "begin",
            "began",
            "opened",
            "open",
            "from",
            "hire",
            "hired",
            "entry",
            "scheduled",
            "sched",
        ],
        0.8,
    ),
    **dict.fromkeys(["date", "time", "ts", "at", "day", "when", "moment", "datetime", "timestamp"], 0.4),
}
"""How much a word says that a time is when its row came into being."""

LATER_WORDS = {
    **dict.fromkeys(
        [
            "update",
            "updated",
            "modified",
            "modify",
            "edited",
            "edit",
            "changed",
            "last",
            "refreshed",
            "synced",
            "lastupdate",
        ],
        1.0,
    ),
    **dict.fromkeys(
        [
            "end",
            "ended",
            "stop",
            "finished",
            "closed",
            "close",
            "expire",
            "expires",
            "expiry",
            "expiration",
            "until",
            "to",
        ],
        0.8,
    ),
    **dict.fromkeys(
        [
            "due",
            "required",
            "delivered",
            "delivery",
            "shipped",
            "received",
            "returned",
            "return",
            "deleted",
            "cancelled",
        ],
        0.8,
    ),
    **dict.fromkeys(
        ["commit", "committed", "receipt", "ship", "paid", "resolved", "completed", "processed", "death", "died"], 0.7
    ),
}
"""How much a word says that a time is written after its row came into being."""

BIRTH_WORDS = frozenset(["birth", "birthday", "birthdate", "born", "dob"])

CATEGORY_WORDS = frozenset(
    [
        "category",
        "class",
        "classification",
        "code",
        "country",
        "currency",
        "flag",
        "gender",
        "grade",
        "group",
        "kind",
        "lang",
        "language",
        "level",
        "locale",
        "mode",
        "nationality",
        "race",
        "sex",
        "state",
        "status",
        "type",
        "zone",
    ]
)
"""Words of columns that tell kinds apart."""

LABEL_WORDS = frozenset(
    ["postal", "zip", "zipcode", "phone", "fax", "tel", "telephone", "ssn", "isbn", "ean", "sku", "iban"]
)
"""Words of columns whose digits are no quantity."""

CONTACT_WORDS = frozenset(
    ["address", "email", "fax", "homepage", "phone", "photo", "street", "tel", "telephone", "url", "website"]
)
"""Words of columns that say where to find somebody."""

TRUTH_WORDS = frozenset(["active", "can", "deleted", "enabled", "flag", "has", "is", "valid", "was"])
"""Words of columns that are true or false."""

PROSE_WORDS = frozenset(
    ["name", "title", "description", "comment", "text", "body", "note", "notes", "summary", "email", "address", "url"]
)
"""Words of columns that describe a row; such a column is seldom its key."""

QUANTITY_WORDS = frozenset(
    [
        "amount",
        "average",
        "avg",
        "count",
        "duration",
        "length",
        "max",
        "mean",
        "min",
        "minutes",
        "qty",
        "quantity",
        "rate",
        "score",
        "seconds",
        "size",
        "sum",
        "total",
    ]
)
"""Words of columns that measure; no key is named so."""

CALENDAR_WORDS = frozenset(
    ["day", "hour", "minute", "month", "quarter", "second", "season", "week", "weekday", "year", "yday", "wday"]
)
"""Words of numbers that say a time again."""

_NOT_IDS = frozenset(
    {"acid", "aid", "bid", "fluid", "grid", "hockey", "humid", "hybrid", "jockey", "monkey", "paid", "rapid", "solid"}
    | {"squid", "turkey", "unpaid", "valid", "void", "whiskey"}
)
"""Words that only end like a key."""

_PIECES = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")
_TABLE_PREFIXES = frozenset({"tbl", "table", "dim", "fact", "stg", "raw", "vw", "t"})


@functools.cache
def words(name: str) -> tuple[str, ...]:
    """The words of a name, in small letters: `OwnerUserId` and `owner_user_id` are both owner, user, id."""
    return tuple(piece.lower() for piece in _PIECES.findall(name))


@functools.cache
def singular(word: str) -> str:
    """A word without the ending of a plural: rough, and the same for both sides of a comparison."""
    if word in ("series", "species"):
        return word
    for ending, instead in (("ies", "y"), ("sses", "ss"), ("ches", "ch"), ("shes", "sh"), ("xes", "x"), ("uses", "us")):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            return word[: -len(ending)] + instead
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        return word[:-1]
    return word


def table_words(name: str) -> tuple[str, ...]:
    """What a table holds rows of: `dim_customers` holds customer."""
    found = tuple(singular(word) for word in words(name))
    return found[1:] if len(found) > 1 and found[0] in _TABLE_PREFIXES else found


def without_id(name: str) -> tuple[str, ...]:
    """The words of a column without what says that it identifies: `owner_user_id` and `UserKey` are of a user.

    Also `orderkey` and `custid`, where the ending is written together.
    """
    found = [singular(word) for word in words(name)]
    while len(found) > 1 and found[-1].isdigit():
        found.pop()
    while found and found[-1] in ID_WORDS:
        found.pop()
    if found and len(found) == len(words(name)):
        for ending in () if found[-1] in _NOT_IDS else ("key", "id", "code"):
            if found[-1].endswith(ending) and len(found[-1]) > len(ending) + 1:
                found[-1] = singular(found[-1].removesuffix(ending))
                break
    return tuple(found)


def says_id(name: str) -> bool:
    """Whether a name says that it identifies something."""
    found = words(name)
    while len(found) > 1 and found[-1].isdigit():
        found = found[:-1]
    if not found or found[-1] in _NOT_IDS:
        return False
    return found[-1] in ID_WORDS or found[-1].endswith(("id", "key"))
