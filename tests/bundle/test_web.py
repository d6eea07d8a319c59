"""`export --web` in a headless Chromium, with a plain file server: it answers as `predict` does."""

import functools
import http.server
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_kit import await_page, export_to, halving, photos_store
from PIL import Image
from syrupy.assertion import SnapshotAssertion

from chromium import axe, blank
from offramp.bundle import web
from offramp.bundle.card import data_title
from offramp.bundle.runtime import UNANSWERED, Bundle
from offramp.errors import OfframpError
from offramp.policy import scoring
from refusal import refuses
from wording import refusal

HERE = Path(__file__)


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """The address of a plain file server, and what it was asked for."""
    paths: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_request(self, *_: Any) -> None:
            paths.append(self.path)

    make = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), make) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/", paths
        server.shutdown()
        thread.join()


def engine() -> Path:
    try:
        return web.find_runtime(None, HERE.parent)
    except OfframpError as error:
        pytest.skip(f"the page is not opened here: {error}")


LEAVING = re.compile(r"at exit \d(, the last|: \d+ % of the computation was not needed)\.$")
LEFT_EDGES = "return [...document.querySelectorAll('#path li')].map((i) => i.offsetLeft)"
WIDTHS = "return [document.documentElement.scrollWidth, innerWidth]"
PREVENTED = "return !dispatchEvent(new Event(arguments[0], { cancelable: true }))"
PIXELS = """
const [data, how, width, height, done] = arguments;
import("./network.js").then(({ pixels }) =>
  done([...pixels({ width, height, data: Uint8Array.from(data) }, how)]));
"""


def show(browser: Any, address: str, width: int = 1400, colors: str = "light") -> None:
    blank(browser, width, colors)
    browser.get(address)
    assert await_page(browser, "page.dataset.ready === 'yes' || !problem.hidden") == ""


def answers(browser: Any, files: list[Path]) -> list[tuple[str, str, str, int]]:
    """File, class, confidence and exit of each, as the page shows them."""
    browser.find_element("id", "files").send_keys("\n".join(map(str, files)))
    await_page(browser, f"page.dataset.answered === '{len(files)}'")
    rows = browser.execute_script(
        "return [...document.querySelectorAll('#rows tr')].map("
        "(r) => [...r.children].map((c) => c.textContent))"
    )
    return [(name, label, sure, int(exit)) for name, label, sure, exit, _ in reversed(rows)]


@pytest.fixture(scope="module")
def colored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of color images that are resized and cropped, with margins and temperatures."""
    folder = tmp_path_factory.mktemp("colored")
    store = photos_store(folder, (40, 48, 3), size=16, fit="crop", resize=20)
    export_to(folder / "bundle", store, halving(store, "two-stage", "margin"))
    return folder / "bundle"


SCORE = """
const [address, rows, name, warmth, gates, done] = arguments;
import(address + "network.js").then(({ score }) => done(rows.map((row) => {
  let past = null;
  return row.map((exit, at) => {
    const logits = exit.map((value) => value === null ? NaN : value);
    const [sure, next] = score(name, logits, warmth[at], past, gates[at]);
    past = next;
    return sure === -Infinity ? null : sure;
  });
}))).catch((error) => done(String(error)));
"""


def test_every_score_is_that_of_python(browser: Any) -> None:
    """Also of exits that are sure of nothing, or so sure that the others' probabilities are 0."""
    logits = np.random.default_rng(0).normal(0, 2, (60, 4, 3)).round(2)
    logits[::7, 1, 0] = np.nan
    logits[5, :3] = np.eye(3) * 2000
    warmth = (1.0, 0.5, 2.0, 1.0)
    steep = (90.0, 90.0, -900.0, 9.0, 9.0)
    gates = ((3.0, -1.0, 2.0, 0.5, -2.0), (-4.0, 1.0, 2.0, 3.0, 0.0), steep, None)
    rows = [[[None if np.isnan(v) else v for v in exit] for exit in row] for row in logits.tolist()]
    with served(Path(web.__file__).with_name("site")) as (address, _):
        blank(browser, 400, "light")
        browser.get(address + "style.css")
        for name in (name for name, score in scoring.SCORES.items() if not score.several):
            by_row = browser.execute_async_script(SCORE, address, rows, name, warmth, gates)
            assert isinstance(by_row, list), f"{name}: {by_row}"
            sure = np.array([[-np.inf if v is None else v for v in row] for row in by_row])
            expected = scoring.scores(name, logits, warmth, gates)
            np.testing.assert_allclose(sure, expected, rtol=1e-9, atol=1e-12, err_msg=name)


WALK = """
const [address, rows, done] = arguments;
const answered = async ({ walk }, row) => {
  const data = Float32Array.from(row.map(Number)); // JSON has no NaN: they come as text
  const session = { inputNames: [], outputNames: ["logits"], run: async () => ({ logits: { data } }) };
  const stages = [{ exit: 1, threshold: null, temperature: 2, macs: 1, session }];
  const about = { preprocessing: { channels: 1, size: [1, 1] }, score: "confidence", plain_macs: 1 };
  const exits = walk({ Tensor: Object }, about, stages, data);
  const { value } = await exits.next();
  return [value.class, value.confidence];
};
import(address + "network.js").then((page) => Promise.all(rows.map((row) => answered(page, row))))
  .then(done).catch((error) => done(String(error)));
"""
STRANGE = [[1.0, np.nan, 2.0], [np.nan] * 3, [np.inf, 0.0, np.inf], [-np.inf] * 3, [0.0, -np.inf, 3.0]]


def test_what_is_no_answer_in_python_is_none_on_the_page(browser: Any) -> None:
    """There it was the first class, of which the page was 0 % sure."""
    logits = np.array(STRANGE, np.float32)
    rows = [
        [str(value).replace("inf", "Infinity").replace("nan", "NaN") for value in r] for r in STRANGE
    ]
    with served(Path(web.__file__).with_name("site")) as (address, _):
        blank(browser, 400, "light")
        browser.get(address + "style.css")
        by_row = browser.execute_async_script(WALK, address, rows)
    assert isinstance(by_row, list), by_row
    assert [number for number, _ in by_row] == scoring.answers(logits).tolist()
    sure = np.array([np.nan if each is None else each for _, each in by_row])
    np.testing.assert_allclose(sure, scoring.certainty(logits, 2.0, several=False), rtol=1e-6)
    assert np.isnan(sure).tolist() == [True, True, True, True, False]


def test_nan_is_no_answer_on_the_page(browser: Any, leaving: Path, tmp_path: Path) -> None:
    web.write(leaving, tmp_path / "site", engine())
    code = (tmp_path / "site" / "network.js").read_text()
    broken = code.replace(
        "before === null ? logits.data", "before === null ? logits.data.map(() => NaN)"
    )
    assert broken != code
    (tmp_path / "site" / "network.js").write_text(broken)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "good.png")
    with served(tmp_path / "site") as (address, _):
        show(browser, address)
        assert answers(browser, [tmp_path / "good.png"]) == []
        assert browser.find_element("id", "problem").text == f"good.png: {UNANSWERED}"


@pytest.mark.journey
@pytest.mark.parametrize("kind", ["bundle", "together", "cascade", "gated", "colored"])
def test_it_answers_as_predict_does(
    kind: str, browser: Any, leaving: Path, colored: Path, tmp_path: Path
) -> None:
    folder = colored if kind == "colored" else leaving.with_name(kind)
    web.write(folder, tmp_path / "site", engine())
    bundle = Bundle(folder, threads=1)
    files = []
    if kind != "colored":
        from sklearn.datasets import load_digits

        for i, image in enumerate(load_digits().images[:12]):
            files.append(tmp_path / f"{i}.png")
            Image.fromarray((image * 15).astype(np.uint8)).save(files[-1])
    else:
        chance = np.random.default_rng(1)
        for i, (height, width) in enumerate(
            [(40, 48), (21, 20), (97, 33), (20, 20), (150, 300), (16, 16)]
        ):
            coarse = chance.integers(0, 255, (height // 4 + 1, width // 4 + 1, 3)).astype(np.uint8)
            files.append(tmp_path / f"{i}.png")
            Image.fromarray(coarse).resize((width, height)).save(files[-1])
    expected = bundle.predict([Image.open(file) for file in files])
    with served(tmp_path / "site") as (address, paths):
        show(browser, address, 768, "dark" if kind == "bundle" else "light")
        answered = answers(browser, files)
        assert LEAVING.search(browser.find_element("id", "said").text)
        assert len(set(browser.execute_script(LEFT_EDGES))) == 1
        assert browser.get_log("browser") == []
        if kind in ("bundle", "colored"):  # in dark and in light; the others are the same page
            assert axe(browser) == []
    assert len(set(expected.exits.tolist())) > 1
    for file, label, exit, sure, (name, text, percent, left) in zip(
        files, expected.labels, expected.exits, expected.confidence, answered, strict=True
    ):
        assert (name, text, left) == (file.name, label, exit)
        assert abs(float(percent.removesuffix(" %")) - 100 * float(sure)) <= 0.11
    assert {path.rpartition(".")[2] for path in paths} >= {"onnx", "wasm", "mjs", "json"}


def test_pixels_are_those_of_pillow(browser: Any, colored: Path, tmp_path: Path) -> None:
    web.write(colored, tmp_path / "site", engine())
    how = Bundle(colored, threads=1).preprocessing
    image = Image.fromarray(np.random.default_rng(2).integers(0, 255, (37, 61, 3)).astype(np.uint8))
    expected = how.normalized(how.pixels(image)[None])[0].ravel()
    rgba = np.asarray(image.convert("RGBA")).ravel().tolist()
    with served(tmp_path / "site") as (address, _):
        show(browser, address)
        on_page = browser.execute_async_script(PIXELS, rgba, how.as_json(), image.width, image.height)
    np.testing.assert_array_equal(np.asarray(on_page, np.float32), expected)


def test_what_no_network_takes_is_said(browser: Any, leaving: Path, tmp_path: Path) -> None:
    web.write(leaving, tmp_path / "site", engine())
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "large.png")
    (tmp_path / "none.png").write_bytes(b"no image")
    with served(tmp_path / "site") as (address, _):
        for width, colors in ((390, "dark"), (768, "light"), (1400, "dark")):
            show(browser, address, width, colors)
            assert answers(browser, [tmp_path / "large.png"]) == []
            assert "9×9 pixels" in browser.find_element("id", "problem").text
            assert browser.execute_script(WIDTHS) == [width, width]
        show(browser, address)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "good.png")
        ((name, *_),) = answers(browser, [tmp_path / "none.png", tmp_path / "good.png"])
        assert name == "good.png"  # whose answer does not hide what is wrong with the one before
        assert browser.find_element("id", "problem").text.startswith("none.png: ")


def test_opened_from_disk_it_says_what_to_do(browser: Any) -> None:
    """Browsers run no module from a file, so no script can say it."""
    blank(browser, 1400, "light")
    browser.get((Path(web.__file__).parent / "site" / "index.html").as_uri())
    assert "http.server" in browser.find_element("id", "about").text


def test_an_image_that_comes_too_early_leaves_the_page(
    browser: Any, leaving: Path, tmp_path: Path
) -> None:
    web.write(leaving, tmp_path / "site", engine())
    (tmp_path / "site" / "bundle.json").unlink()  # so that the network is never there
    with served(tmp_path / "site") as (address, _):
        blank(browser, 1400, "light")
        browser.get(address)
        assert await_page(browser, "!problem.hidden") != ""
        for kind in ("dragover", "drop"):
            assert browser.execute_script(PREVENTED, kind), kind


def test_places_and_runtimes_that_will_not_do(
    leaving: Path, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    assert refusal(web.find_runtime, tmp_path, tmp_path) == snapshot
    assert refusal(web.find_runtime, None, tmp_path) == snapshot
    dist = tmp_path / "node_modules" / web.PACKAGE / "dist"
    dist.mkdir(parents=True)
    for name in web.RUNTIME:
        (dist / name).write_text("x")
    assert web.find_runtime(None, tmp_path / "deeper") == dist
    web.write(leaving, tmp_path / "site", dist)
    refuses("a page already", web.write, leaving, tmp_path / "site", dist)
    (tmp_path / "site" / ".DS_Store").touch()
    web.write(leaving, tmp_path / "site", dist, force=True)
    refuses("cannot write", web.write, leaving, dist / web.RUNTIME[0] / "site", dist)
    (tmp_path / "site" / "mine.txt").write_text("x")
    assert refusal(web.write, leaving, tmp_path / "site", dist, force=True) == snapshot
    listed = json.loads((tmp_path / "site" / "bundle.json").read_text())
    assert [stage["exit"] for stage in listed["stages"]] == [1, 2, 3]
    assert listed["title"].endswith("on digits")


@pytest.mark.parametrize(
    ("data", "title"),
    [
        ({"name": "cifar10", "provenance": {"root": "x/files"}}, "cifar10"),
        ({"name": "folder", "provenance": {"root": "pictures/photos"}}, "photos"),
        ({"name": "table", "provenance": {"root": "."}}, "3 classes of images"),
        ({"name": "folder", "provenance": {"root": "x/files", "url": "x"}}, "3 classes of images"),
        ({"name": "folder"}, "3 classes of images"),
    ],
)
def test_a_page_and_a_card_say_what_their_images_are(data: dict[str, Any], title: str) -> None:
    assert data_title({"data": data, "network": {"classes": 3}}) == title
