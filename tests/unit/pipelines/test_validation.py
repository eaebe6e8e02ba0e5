from __future__ import annotations

from itertools import pairwise

import pytest

from core.pipelines.definition import MAX_BYTES, parse
from core.pipelines.problems import WrongPipeline
from core.pipelines.validation import validate
from tests.unit.pipelines.facts import CASCADE, FACTS


def wrong(text: str) -> WrongPipeline:
    with pytest.raises(WrongPipeline) as found:
        validate(text, FACTS)
    return found.value


def graph(nodes: str, output: str = "x", inputs: str = "photo: image") -> str:
    return f"inputs: {{{inputs}}}\nnodes:\n{nodes}\noutputs:\n  answer: {output}\n"


def test_a_cascade_is_taken() -> None:
    plan = validate(CASCADE, FACTS)
    assert [node.name for node in plan.nodes] == ["detect", "sure", "best", "objects"]
    assert plan.modality == "image"
    assert plan.decode
    assert plan.models() == {("detector", None), ("classifier", 2)}
    source, type_ = plan.outputs["objects"]
    assert (source.name, source.port, str(type_)) == ("objects", "items", "list of {detection, classes}")


def test_nodes_run_in_an_order_that_is_not_the_one_they_are_written_in() -> None:
    text = graph(
        "  x: {op: select, input: c.predictions, path: '0.label'}\n  c: {model: classifier, input: photo}"
    )
    plan = validate(text, FACTS)
    assert [node.name for node in plan.nodes] == ["c", "x"]
    assert str(plan.outputs["answer"][1]) == "text"
    assert not plan.decode  # the model decodes as suits it


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("- 1", 1, "it must hold `inputs`"),
        ("inputs: {photo: image}\nnodes: {}\noutputs: {a: photo}", 2, "`nodes` must be there"),
        (graph("  x: {model: detector, input: phto}"), 3, "there is no `phto` here; there is photo"),
        (graph("  x: {model: nobody, input: photo}"), 3, "there is no model `nobody`"),
        (graph("  x: {op: blur, input: photo}"), 3, "there is no operation `blur`; there are concat"),
        (graph("  x: {op: crop, model: a, input: photo}"), 3, "either `model` or `op`"),
        (
            graph("  x: {model: detector, input: photo, verson: 1}"),
            3,
            "`verson` is not known here; there are model",
        ),
        (
            graph("  x: {model: detector, inputs: {picture: photo}}"),
            3,
            "there is no input `picture`; there are: image",
        ),
        (graph("  x: {model: embedder, input: photo}"), 3, "`text` takes text, and `photo` is image"),
        (
            graph("  d: {model: detector, input: photo}\n  x: {model: classifier, input: d.detections}"),
            4,
            "`image` takes image, and `d.detections` is detections",
        ),
        (
            graph("  d: {model: detector, input: photo}\n  x: {op: merge, inputs: {a: d.boxes}}"),
            4,
            "detections has no `boxes`; take it out with `select`",
        ),
        (
            graph("  x: {op: top-k, input: photo, k: 3}"),
            3,
            "it takes a list of items that have a score, not image",
        ),
        (
            graph("  d: {model: detector, input: photo}\n  x: {op: top-k, input: d, k: 0}"),
            4,
            "must be from 1 to 1000",
        ),
        (graph("  d: {model: detector, input: photo}\n  x: {op: top-k, input: d}"), 4, "`top-k` needs `k`"),
        (graph("  x: {model: detector, input: photo}", "photo"), 5, "image cannot be answered"),
        (graph("  x: {model: detector, input: photo}", "gone"), 5, "there is no `gone` here"),
        (graph("  x: {model: odd, input: photo}", "x.detections"), 5, "json has no `detections`"),
        (graph("  photo: {model: detector, input: photo}"), 3, "the name `photo` is taken already"),
        (graph("  x: {op: text, template: 'a {b}', inputs: {c: photo}}"), 3, "there is no input `b`"),
        (graph("  x: {op: text, template: 'a } b'}"), 3, "a brace stands alone"),
        (graph("  x: {op: map, over: photo, output: item}"), 3, "a map goes over a list, not over image"),
        (graph("  1x: {op: constant, value: 1}"), 3, "`1x` is no name"),
        (graph("  x: {op: constant, value: a, type: number}"), 3, "it is text, not number"),
        (graph("  x: {op: constant, value: 2024-01-02}"), 3, "must be text, a number"),
        (graph("  x: {op: constant, value: .nan}"), 3, "must be a finite number"),
        (graph("  x: {op: constant, value: 1}"), 1, "nothing uses this input"),
        (graph("  x: {model: detector, input: photo}", inputs="photo: picture"), 1, "`picture` is no type"),
        (graph("  x: {model: detector, input: photo}", inputs="photo: image, b: image"), 1, "one image or audio"),
        (
            graph("  x: {op: constant, value: 1}", inputs="a: {type: number, default: 1}"),
            1,
            "takes an image, audio",
        ),
        (graph("  x: {op: constant, value: 1}\n  x: {op: constant, value: 1}"), 4, "there twice"),
    ],
)
def test_a_wrong_definition_is_refused_with_its_line(text: str, line: int, said: str) -> None:
    error = wrong(text)
    assert any(problem.line == line and said in problem.message for problem in error.problems), [
        str(problem) for problem in error.problems
    ]


def test_all_problems_are_told_in_the_order_of_their_lines() -> None:
    error = wrong(graph("  x: {model: nobody, input: photo}\n  y: {op: blur}\n  z: {model: detector}"))
    assert [problem.line for problem in error.problems] == [3, 4, 5]
    assert error.message.startswith("graph.yaml, line 3: nodes.x.model: there is no model `nobody`.")
    assert error.message.endswith("There are 2 more problems; ask for all of them with a check alone.")


def test_a_cycle_is_shown_whole() -> None:
    nodes = """
  a: {op: merge, inputs: {one: c}}
  b: {op: merge, inputs: {one: a}}
  c: {op: merge, inputs: {one: b}}
  x: {model: detector, input: photo}"""
    (problem,) = [one for one in wrong(graph(nodes)).problems if "cycle" in one.message]
    assert problem.line in (4, 5, 6)
    way = problem.message.split(", ")[1].rstrip(".").split(" -> ")
    assert list(pairwise(way)) in (
        [("a", "b"), ("b", "c"), ("c", "a")],
        [("b", "c"), ("c", "a"), ("a", "b")],
        [("c", "a"), ("a", "b"), ("b", "c")],
    )


def test_a_node_that_needs_itself_is_a_cycle() -> None:
    assert "a cycle" in wrong(graph("  x: {op: merge, inputs: {one: x}}")).message


def test_a_map_that_needs_itself_from_within_is_a_cycle() -> None:
    nodes = """
  d: {model: detector, input: photo}
  x: {op: map, over: d, nodes: {y: {op: merge, inputs: {a: x}}}, output: y}"""
    assert "a cycle" in wrong(graph(nodes)).message


def test_unused_nodes_are_told_also_in_bodies() -> None:
    nodes = """
  d: {model: detector, input: photo}
  lost: {model: classifier, input: photo}
  x:
    op: map
    over: d
    nodes:
      crop: {op: crop, inputs: {image: photo, box: item}}
      kept: {op: select, input: item, path: label}
    output: kept"""
    error = wrong(graph(nodes))
    assert [(problem.line, problem.where) for problem in error.problems] == [
        (5, "nodes.lost"),
        (10, "nodes.x.nodes.crop"),
    ]


def test_a_body_may_not_take_a_name_of_outside() -> None:
    nodes = """
  d: {model: detector, input: photo}
  x: {op: map, over: d, nodes: {later: {op: select, input: item, path: label}}, output: later}
  later: {model: classifier, input: photo}"""
    assert "the name `later` is taken already" in str(wrong(graph(nodes)).problems)


@pytest.mark.parametrize(
    "bomb",
    [
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",
        "a: &a {b: *a}",
        "inputs: &here {photo: image}",
    ],
)
def test_aliases_are_refused_before_anything_is_built(bomb: str) -> None:
    assert "anchors and aliases" in wrong(bomb).message


def test_a_definition_that_is_too_large_is_refused() -> None:
    assert "larger than" in wrong("# " + "x" * MAX_BYTES).message


def test_a_definition_that_is_too_deep_is_refused() -> None:
    assert "nested too deep" in wrong("a: " + "[" * 1000 + "]" * 1000).message


def test_too_many_nodes_are_refused() -> None:
    nodes = "\n".join(f"  n{i}: {{op: constant, value: 1}}" for i in range(300))
    error = wrong(graph(nodes))
    assert "a pipeline may have 200 nodes" in str(error.problems)


def test_bodies_may_not_be_nested_without_end() -> None:
    nodes = "  x: {op: constant, value: 1}"
    for depth in range(5):
        nodes = f"  x{depth}: {{op: map, over: photo, as: i{depth}, nodes: {{{nodes.strip()}}}, output: i{depth}}}"
    with pytest.raises(WrongPipeline, match="nested 3 deep"):
        parse(graph(nodes))


def test_the_fan_out_of_nested_maps_is_bounded() -> None:
    text = """
inputs: {photo: image}
nodes:
  d: {model: detector, input: photo}
  x:
    op: map
    over: d
    max_items: 200
    nodes:
      crop: {op: crop, inputs: {image: photo, box: item}}
      again: {model: detector, input: crop}
      y:
        op: map
        over: again
        as: inner
        max_items: 100
        nodes:
          part: {op: crop, inputs: {image: crop, box: inner}}
          c: {model: classifier, input: part}
        output: c
    output: y
outputs: {answer: x}
"""
    error = wrong(text)
    assert error.problems[0].line == 6
    assert "call models 20,201 times; at most 10,000" in error.message
    assert validate(text.replace("max_items: 200", "max_items: 50"), FACTS).decode


def test_shapes_of_tensors_must_go_together() -> None:
    good = "inputs: {x: 'tensor FP32 [-1, 8]'}\nnodes:\n  a: {model: wide, input: x}\n"
    good += "  b: {model: narrow, input: a}\n"
    plan = validate(good + "outputs: {z: b.z}", FACTS)
    assert plan.modality == "tensor"
    bad = good.replace("model: narrow", "model: wide")
    assert (
        "`x` takes tensor FP32 [-1, 8], and `a` is tensor FP32 [-1, 4]" in wrong(bad + "outputs: {z: b.y}").message
    )
    bad = good.replace("FP32", "INT64")
    assert "`x` is tensor INT64 [-1, 8]" in wrong(bad + "outputs: {z: b.z}").message


SWITCH = """
inputs: {photo: image}
nodes:
  c: {model: classifier, input: photo}
  first: {op: select, input: c.predictions, path: "0"}
  x:
    op: switch
    by: first.label
    cases:
      - when: [cat, dog]
        nodes: {d: {model: detector, input: photo}}
        output: d
      - {when: bird, output: none.value}
    default: {output: none.value}
  none: {op: constant, value: [], type: detections}
outputs: {answer: x}
"""


def test_a_switch_answers_what_its_cases_have_in_common() -> None:
    assert str(validate(SWITCH, FACTS).outputs["answer"][1]) == "detections"
    mixed = validate(SWITCH.replace(", type: detections", ""), FACTS)
    assert str(mixed.outputs["answer"][1]) == "json"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("by: first.label", "by: first.score", "goes by a number: use `at_least`"),
        ("by: first.label", "by: first", "goes by a text or a number, not by label"),
        ("    default: {output: none.value}\n", "", "needs a `default`"),
        ("when: bird", "at_least: 1", "goes by a text: use `when`"),
        ("when: bird,", "", "a case needs either"),
        ("when: bird", "when: yes", "must be a text or a list of them; put odd ones in quotes"),
        ("output: none.value}\n    default", "output: photo}\n    default", "types that do not go together"),
    ],
)
def test_a_wrong_switch_is_refused(old: str, new: str, said: str) -> None:
    assert old in SWITCH
    assert said in str([str(problem) for problem in wrong(SWITCH.replace(old, new)).problems])
