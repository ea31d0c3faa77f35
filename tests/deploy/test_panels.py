"""Pictures of the dashboard show what was recorded, and are known to be old when they are."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tools.panels import __main__ as command
from tools.panels import board, recorded
from tools.panels.board import Panel, Row, Target
from tools.panels.chart import NO_DATA, Chart, minutes, stretches
from tools.panels.legend import COLOURS, Line, legend, legend_name, lines
from tools.panels.load import PHASES, shortened
from tools.panels.pictures import picture, pictures, stale
from tools.panels.record import filled, series_of
from tools.panels.recorded import Recording, Run, Series, differences
from tools.panels.units import UNITS

SVG = "{http://www.w3.org/2000/svg}"
RUN = Run("2026-01-01 12:00", "1.2.3", "engine", "2 cores, no GPU", ("Redis",), 2, 4, 5, ((0.0, "calm"), (4.0, "a burst")))
PANEL = Panel("Calls", "reqps", False, None, (Target("calls", "{{method}}"),))
ROWS = [Row("Golden signals", (PANEL, Panel("Busy", "percentunit", False, 1.0, (Target("busy", "busy"),))))]


def of(*series: Series) -> Recording:
    return Recording(RUN, {"Golden signals": {"Calls": {"calls": list(series)}, "Busy": {"busy": []}}})


def drawn(panel: Panel, *values: list[float | None], names: str = "abcdef") -> ElementTree.Element:
    found = [Line(name, colour, line) for name, colour, line in zip(names, COLOURS, values, strict=False)]
    chart = Chart(panel, found, RUN)
    return ElementTree.fromstring(f'<svg xmlns="http://www.w3.org/2000/svg">{chart.svg(0, 0, chart.height, "c")}</svg>')


def texts(root: ElementTree.Element, kind: str) -> list[str]:
    return ["".join(found.itertext()) for found in root.iter(f"{SVG}text") if found.get("class") == kind]


def strokes(root: ElementTree.Element) -> list[list[tuple[float, float]]]:
    """Points of the graph's lines."""
    found = [path.get("d", "") for path in root.iter(f"{SVG}path") if path.get("class") == "line"]
    return [[(float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", d)] for d in found]


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [
        ("reqps", 0.0, "0 req/s"),
        ("reqps", 4.236, "4.24 req/s"),
        ("ops", 1234.0, "1.23 K ops/s"),
        ("s", 0.0, "0 s"),
        ("s", 0.00095, "950 µs"),
        ("s", 0.0713, "71.3 ms"),
        ("s", 90.0, "1.5 min"),
        ("s", 2_592_000.0, "4.29 weeks"),
        ("s", -3600.0, "-1 h"),
        ("percentunit", 0.0712, "7.12 %"),
        ("percentunit", 1.0, "100 %"),
        ("bytes", 207.0 * 2**20, "207 MiB"),
        ("short", 20_000.0, "20 K"),
        ("none", 46.4, "46.4"),
    ],
)
def test_a_number_is_written_in_its_unit(unit, value, text) -> None:
    assert UNITS[unit].text(value) == text


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("highest", [1e-6, 0.00123, 0.3, 1.0, 7.0, 59.9, 1000.0, 3.5e8])
def test_an_axis_goes_from_zero_evenly_over_the_highest(unit, highest) -> None:
    ticks = UNITS[unit].ticks(highest)
    values = [value for value, _ in ticks]
    assert values[0] == 0
    assert highest * (1 - 1e-9) <= values[-1] < 2 * highest
    assert 3 <= len(values) <= 6
    assert len({round((after - before) / values[1], 6) for before, after in pairwise(values)}) == 1
    assert len({label for _, label in ticks}) == len(ticks)


def test_all_the_labels_of_an_axis_are_in_one_multiple() -> None:
    assert [label for _, label in UNITS["s"].ticks(0.004)] == ["0 ms", "1 ms", "2 ms", "3 ms", "4 ms"]
    assert [label for _, label in UNITS["percentunit"].ticks(1.0)] == ["0 %", "25 %", "50 %", "75 %", "100 %"]


def test_an_axis_with_an_end_ends_there_and_what_goes_beyond_is_cut_off() -> None:
    root = drawn(replace(PANEL, unit="percentunit", at_most=1.0), [0.5, 0.5, 1.5, 0.5, 0.5])
    assert texts(root, "tick")[4] == "100 %"
    [clip] = root.iter(f"{SVG}clipPath")
    [line] = strokes(root)
    assert min(y for _, y in line) < float(clip[0].get("y", ""))


def test_nothing_but_zeros_has_an_axis_too() -> None:
    root = drawn(PANEL, [0, 0, 0, 0, 0])
    assert texts(root, "tick")[:2] == ["0 req/s", "0.5 req/s"]
    assert strokes(root)


def test_a_gap_stays_a_gap() -> None:
    root = drawn(PANEL, [1, 2, None, 3, 4])
    before, after = strokes(root)
    assert len(before) == len(after) == 2
    assert before[-1][0] < after[0][0]


def test_a_value_between_gaps_is_a_dot() -> None:
    root = drawn(PANEL, [None, 2, None, None, None])
    assert strokes(root) == []
    assert len(list(root.iter(f"{SVG}circle"))) == 1


def test_stretches_of_values() -> None:
    assert list(stretches([None, 1, 2, None, 0])) == [[1, 2], [4]]
    assert list(stretches([None])) == []


def test_what_is_stacked_stands_on_what_is_below() -> None:
    stacked = replace(PANEL, stacked=True)
    below, above = strokes(drawn(stacked, [1, 1, 1, 1, 1], [2, 2, 2, 2, 2]))
    alone, beside = strokes(drawn(PANEL, [1, 1, 1, 1, 1], [2, 2, 2, 2, 3]))
    assert below[0][1] > above[0][1]
    assert above[0][1] == beside[-1][1] == min(y for _, y in beside)
    assert below[0][1] == alone[0][1]


def test_a_layer_without_height_does_not_paint_over_the_one_below() -> None:
    stacked = replace(PANEL, stacked=True)
    _, above = strokes(drawn(stacked, [1, 1, 1, 1, 1], [2, 1, 0, 0, 0]))
    assert len(above) == 3


def test_above_a_gap_in_a_layer_the_next_stands_on_what_is_there() -> None:
    stacked = replace(PANEL, stacked=True)
    *_, above = strokes(drawn(stacked, [1, 1, 1, 1, 1], [1, 1, None, 1, 1], [1, 1, 1, 1, 1]))
    ground, one = (float(text.get("y", "")) for text in list(drawn(PANEL, [3, 3, 3, 3, 3]).iter(f"{SVG}text"))[1:3])
    assert above[2][1] - above[1][1] == pytest.approx(ground - one, abs=0.2)


def test_without_data_a_panel_says_so_and_draws_nothing() -> None:
    for root in (drawn(PANEL), drawn(PANEL, [None] * 5)):
        assert texts(root, "none") == [NO_DATA]
        assert list(root.iter(f"{SVG}path")) == []
        assert texts(root, "title") == ["Calls"]


def test_the_legend_has_the_last_value_there_was() -> None:
    assert texts(drawn(PANEL, [1, 2, 7.5, None, None]), "name") == ["a7.5 req/s"]


def test_more_than_a_few_zeros_are_counted_and_not_named() -> None:
    zeros = [[0.0] * 5] * 4
    root = drawn(PANEL, *zeros, [1.0] * 5)
    assert texts(root, "name") == ["e1 req/s"]
    assert texts(root, "rest") == ["and 4 that stayed at 0"]
    assert texts(drawn(PANEL, *zeros), "rest") == ["4 that stayed at 0"]
    assert texts(drawn(PANEL, *zeros[:3]), "name") == ["a0 req/s", "b0 req/s", "c0 req/s"]


def test_a_long_legend_is_broken_and_a_long_name_cut() -> None:
    many = [Line(f"something_{number}", COLOURS[0], [1.0]) for number in range(4)]
    assert len({entry.line for entry in legend(many, UNITS["reqps"])}) > 1
    [entry] = legend([Line("keys of https://" + "a" * 80, COLOURS[0], [1.0])], UNITS["s"])
    assert entry.name.endswith("…")


def test_a_legend_is_filled_in_as_grafana_does_it() -> None:
    assert legend_name("{{ a }} of {{b}}", {"a": "1"}) == "1 of "


def test_label_values_are_text_and_no_markup() -> None:
    evil = "</text><script>&\"'\x00\x1b"
    [line] = lines([("{{method}}", [Series({"method": evil}, [1.0] * 5)])])
    root = drawn(PANEL, line.values, names=[line.name])
    [name] = texts(root, "name")
    assert name.startswith("</text><script>&\"'\ufffd")
    assert list(root.iter(f"{SVG}script")) == []


def test_a_long_title_is_smaller_and_whole() -> None:
    root = drawn(replace(PANEL, title="What failed, by the reason callers were told"))
    [title] = [text for text in root.iter(f"{SVG}text") if text.get("class") == "title"]
    assert title.text == "What failed, by the reason callers were told"
    assert 9 < float(title.get("style", "").removeprefix("font-size:").removesuffix("px")) < 12.5


def test_a_unit_that_is_not_known_is_not_drawn() -> None:
    with pytest.raises(ValueError, match="furlongs"):
        Chart(replace(PANEL, unit="furlongs"), [], RUN)


def test_the_axis_of_time_has_room_for_its_labels() -> None:
    assert [label for _, label in minutes(replace(RUN, points=91))] == ["0:00", "0:30", "1:00", "1:30", "2:00", "2:30", "3:00"]
    assert len(minutes(replace(RUN, points=3601))) <= 7


def test_a_picture_is_xml_and_the_same_every_time() -> None:
    recording = of(Series({"method": "Align"}, [1, 2, None, 4, 5]))
    recording.rows["Golden signals"]["Again"] = recording.rows["Golden signals"]["Calls"]
    row = Row("Golden signals", (*ROWS[0].panels, replace(PANEL, title="Again")))
    svg = picture(row, recording)
    root = ElementTree.fromstring(svg)
    assert texts(root, "title") == ["Calls", "Busy", "Again"]
    assert texts(root, "told") == ["0:00 calm  ·  0:04 a burst"]
    assert texts(root, "none") == [NO_DATA]
    assert svg == picture(row, recording)
    clips = [clip.get("id") for clip in root.iter(f"{SVG}clipPath")]
    assert len(set(clips)) == len(clips) == 2


def test_what_is_written_is_read_again(tmp_path) -> None:
    recording = of(Series({"method": 'A"lign\n'}, recorded.rounded([1.23456, 2.0, float("nan"), None, float("inf")])))
    file = tmp_path / "recorded.json"
    file.write_text(recorded.write(recording))
    again = recorded.read(file)
    assert again.series("Golden signals", "Calls", "calls")[0].values == [1.235, 2, None, None, None]
    assert recorded.write(again) == recorded.write(recording)
    assert list(json.loads(file.read_text())["rows"]) == ["Golden signals"]


def test_pictures_of_another_recording_are_found(tmp_path) -> None:
    recording = of(Series({"method": "Align"}, [1, 2, 3, 4, 5]))
    for name, svg in pictures(ROWS, recording).items():
        (tmp_path / name).write_text(svg)
    assert stale(ROWS, recording, tmp_path) == []
    assert stale(ROWS, of(Series({"method": "Align"}, [1, 2, 3, 4, 6])), tmp_path) == [
        "golden-signals.svg is not what tools/panels draws of the recording"
    ]
    (tmp_path / "gone.svg").write_text("<svg/>")
    assert stale(ROWS, recording, tmp_path) == ["gone.svg belongs to no row of the dashboard"]
    (tmp_path / "golden-signals.svg").unlink()
    assert len(stale(ROWS, recording, tmp_path)) == 2


def test_a_panel_that_was_not_recorded_is_found() -> None:
    more = [Row("Golden signals", (*ROWS[0].panels, Panel("New", "s", False, None, (Target("new", ""),))))]
    assert differences(ROWS, of()) == []
    assert differences(more, of()) == ["not recorded: Golden signals / New: new"]
    assert differences([Row("Golden signals", (PANEL,))], of()) == ["no longer in the dashboard: Golden signals / Busy: busy"]


def test_the_command_draws_checks_and_says_what_is_missing(tmp_path, monkeypatch, capsys) -> None:
    dashboard = json.loads(command.DASHBOARD.read_text())
    changed = tmp_path / "aligner.json"
    changed.write_text(json.dumps(dashboard))
    rows = board.read(changed)
    empty = Recording(RUN, {})
    for row, panel, expr in recorded.asked(rows):
        empty.rows.setdefault(row, {}).setdefault(panel, {})[expr] = []
    (tmp_path / "recorded.json").write_text(recorded.write(empty))
    monkeypatch.setattr(command, "DASHBOARD", changed)
    monkeypatch.setattr(command, "RECORDED", tmp_path / "recorded.json")
    monkeypatch.setattr(command, "PICTURES", tmp_path / "pictures")
    assert command.main(["--check"]) == 1
    assert command.main(["draw"]) == 0
    assert command.main(["--check"]) == 0
    assert len(list((tmp_path / "pictures").iterdir())) == len(rows)
    dashboard["panels"][1]["targets"][0]["expr"] = "something_else"
    changed.write_text(json.dumps(dashboard))
    capsys.readouterr()
    assert command.main(["--check"]) == 1
    told = capsys.readouterr().err
    assert "something_else" in told
    assert "panels record" in told
    assert command.main(["draw"]) == 1


def test_every_panel_of_the_dashboard_can_be_drawn() -> None:
    rows = board.read(command.DASHBOARD)
    panels = [panel for panel in json.loads(command.DASHBOARD.read_text())["panels"] if panel["type"] != "row"]
    assert sum(len(row.panels) for row in rows) == len(panels)
    for row in rows:
        for panel in row.panels:
            Chart(panel, [], RUN)


def test_a_panel_is_read_as_the_dashboard_has_it(tmp_path) -> None:
    custom = {"stacking": {"mode": "normal"}}
    panel = {"type": "timeseries", "title": "Busy", "fieldConfig": {"defaults": {"unit": "s", "max": 2, "custom": custom}}}
    panel["targets"] = [{"expr": "a", "legendFormat": "b"}]
    file = tmp_path / "aligner.json"
    file.write_text(json.dumps({"panels": [{"type": "row", "title": "First"}, panel]}))
    [row] = board.read(file)
    assert row.title == "First"
    assert row.panels == [Panel("Busy", "s", True, 2, [Target("a", "b")])]
    file.write_text(json.dumps({"panels": [{"type": "row", "title": "First"}, panel | {"type": "heatmap"}]}))
    with pytest.raises(ValueError, match="heatmap"):
        board.read(file)


def test_no_variable_of_the_dashboard_is_left_when_prometheus_is_asked() -> None:
    for _, _, expr in recorded.asked(board.read(command.DASHBOARD)):
        assert "$" not in filled(expr)
    assert filled('rate(a{job="$job", instance=~"$instance"}[$__rate_interval])') == 'rate(a{job="aligner", instance=~".*"}[12s])'


def test_points_that_prometheus_leaves_out_are_gaps() -> None:
    values = [[100.0, "1.23456"], [104.0, "NaN"], [106.0, "4"]]
    series = series_of({"metric": {"__name__": "a", "job": "b", "c": "d"}, "values": values}, 100.0, RUN)
    assert series == Series({"c": "d"}, [1.235, None, None, 4, None])


def test_a_shorter_run_has_the_same_story() -> None:
    short = shortened(PHASES, 0.5)
    assert [phase.what for phase in short] == [phase.what for phase in PHASES]
    assert sum(phase.seconds for phase in short) == pytest.approx(30)
    assert sum(phase.seconds for phase in PHASES) == 180


def test_the_page_shows_every_picture_and_no_other() -> None:
    page = command.ROOT / "docs" / "dashboard.md"
    shown = {Path(found).name for found in re.findall(r"!\[[^]]*\]\(([^)]*)\)", page.read_text())}
    assert shown == {file.name for file in command.PICTURES.glob("*.svg")}


def test_the_page_leads_to_entries_of_the_runbook_that_are_there() -> None:
    docs = command.ROOT / "docs"
    entries = re.findall(r"^### (\w+)$", (docs / "runbook.md").read_text(), re.MULTILINE)
    led = set(re.findall(r"runbook\.md#(\w+)", (docs / "dashboard.md").read_text()))
    assert led
    assert led <= {title.lower() for title in entries}
