"""What commands refuse beside a finished study: in one line, which the snapshot has, and before anything
is written."""

import shlex
import shutil
from pathlib import Path

import pytest
from command import STUDY, Answer, call, refusal
from syrupy.assertion import SnapshotAssertion

from wording import unhashed

ONE = "joint-digits-cnn-digits-s1"
BUILD = "build --backbone resnet18 --data digits --out b"
DIGITS = "build --backbone digits-cnn --data digits --out b"
OVER = "--over 'recipe.learning_rate=[0.001,0.01]'"
STATS = "--value v --group g"
TABLES = {  # what is wrong with them
    "word.csv": "g,v\na,1\na,x2\n",
    "a.xls": "",
    "head.csv": "g,v\n",
    "good.csv": "g,v\na,1\n",
}
MISTAKES = [
    "rnu",
    "search",
    "run s.yaml --dry",
    "run s.yaml --store ''",
    "run s.yaml --log-file ''",
    "report --out ''",
    "run s.yaml --execution fast",
    "run s.yaml --cache-disk '3 pounds'",
    "run s.yaml --workers 0",
    "run s.yaml --workers many",
    "run s.yaml --budget soon",
    "run all.yaml --budget 2h",
    "run s.yaml --speed 14TFLOPS",
    "run s.yaml --speed fast --dry-run",
    "run s.yaml --power 1",
    "run s.yaml --on there",
    "run s.yaml --on ray://head",
    "run s.yaml --on ray --workers 2",
    "run s.yaml --price-per-hour 2 --dry-run",
    "run s.yaml --price-per-hour 2 --on ray",
    "run s.yaml --dry-run --until-decided",
    "run s.yaml --max-seeds 5",
    "run s.yaml --until-decided --difference 0",
    "run s.yaml --until-decided --budget 1min",
    "run s.yaml --set recipe.epochs=0",
    "run s.yaml --set 'exits=[blocks.9]'",
    "run s.yaml --set data.root=x",
    "run s.yaml --set 'strategies=[jont]'",
    "run --strategy joint --backbone digits-cnn --data digits --cache-disk '3 pounds'",
    "run --strategy jont --backbone digits-cnn --data digits",
    "run --strategy joint --backbone digits-cn --data digits",
    "run --strategy joint --backbone digits-cnn --data digit",
    "search s.yaml",
    "search s.yaml --over recipe.epoch=[2,2]",
    "search s.yaml --over recipe.alpha=uniform(0,1) --per strategy",
    "search s.yaml --over recipe.epochs",
    "search s.yaml --over recipe.epochs=many",
    f"search s.yaml {OVER} --set data.split_seed=trial",
    f"search all.yaml {OVER}",
    "strategies jont",
    "strategies your.py:mine",
    "strategies --exits 0",
    "taps resnet18 --input 3,32,32",
    "taps resnet18 --input 0x32x32",
    "taps resnet18 --input 3x8x8 --stem imagenet",
    "taps vgg16 --stem small",
    "taps digits-cnn --input 1x8x8 --exits a,a",
    "recipes resnet18-cifar10",
    "data describe cifat10",
    "data describe taken",
    "data describe folder:nowhere",
    "data describe digits --set data.sise=4",
    "data describe digits --augment [flop]",
    "data describe digits --sheet taken",
    "data check digits --data cifar10",
    "data split digits --out taken",
    "data split digits --out s.json --train-images 9999",
    "data split digits --out s.json --set data.split_file=old.json",
    "build --data digits",
    f"{BUILD} --seed 1e999",
    f"{BUILD} --size nan",
    f"{BUILD} --budget 1e999h",
    f"{BUILD} --max-mean-latency 3ms",
    f"{DIGITS} --max-mean-macs 1k",
    f"{DIGITS} --risk 0.01",
    f"{DIGITS} --control",  # which has no smaller member
    f"{DIGITS} --goal fame",
    f"{DIGITS} --strategy join",
    f"{DIGITS} --keep-frozen",
    f"{DIGITS} --pretrained",
    f"{DIGITS} --weights lost.pth",
    f"{DIGITS} --exits blocks.9",
    f"{DIGITS} --exits 0",
    f"{DIGITS} --max-accuracy-loss 2",
    f"{DIGITS} --max-accuracy-loss 0.1 --risk 0.1",
    f"{DIGITS} --shared --survivors",
    f"{DIGITS} --batch 4",
    f"{DIGITS} --risk 0.1 --without-labels --temperature",
    f"{DIGITS} --risk 0.1 --without-labels --training-shares",
    f"{DIGITS} --data folder:nowhere",
    f"{DIGITS} --set seeds=[1,2]",
    f"{DIGITS} --int8-loss 0.1",
    f"{DIGITS} --onnxruntime-web x",
    f"{DIGITS} --web site --onnxruntime-web x",
    f"calibrate {ONE} --risk 0.1 --min-accuracy 0.5",
    f"calibrate {ONE} --risk 0",
    f"calibrate {ONE} --risk nan",
    f"calibrate {ONE} --max-accuracy-loss 1.5",
    f"calibrate {ONE} --max-accuracy-loss 1pt",
    f"calibrate {ONE} --min-accuracy 150%",
    f"calibrate {ONE} --max-mean-macs 0.4",
    f"calibrate {ONE} --max-mean-macs lots",
    f"calibrate {ONE} --risk 0.1 --confidence 1",
    f"calibrate {ONE} --risk 0.1 --confidence 0.9 --on-average",
    f"calibrate {ONE} --min-accuracy 0.5 --on-average",
    f"calibrate {ONE} --risk 0.1 --score entropie",
    f"calibrate {ONE} --risk 0.1 --score patience --shared",
    f"calibrate {ONE} --risk 0.1 --without-labels --temperature",
    "calibrate twice --risk 0.1",
    f"calibrate {ONE} --risk 0.1 --store elsewhere",
    f"calibrate {ONE} --max-p95-latency 3ms",
    f"calibrate {ONE} --max-accuracy-loss 0.1 --batch 4",
    f"calibrate {ONE} --max-mean-latency 3ms --stage-times bad.json",
    f"export {ONE} --out b",
    f"export {ONE} --out b --to-measure --policy p.json",
    f"export {ONE} --out b --to-measure --int8-loss 10%",
    f"export {ONE} --out b --to-measure --onnxruntime-web x",
    f"export {ONE} --out b --policy lost.json",
    f"export {ONE} --out b --policy bad.json",
    f"export {ONE} --out s.yaml --policy p.json",
    "export joint-digits-cnn-digits-s2 --out b --policy p.json --quiet",
    "export nobody --out b --policy p.json",
    "export nowhere --hub me/it --license mit",
    "serve nowhere",
    "serve b --port 1e999",
    "serve b --max-wait 20",  # seconds
    "serve b --max-body 5GB",
    "predict runs taken",
    "predict nothing taken/mine.png",
    f"predict {ONE} taken/mine.png --out no/where.csv",
    f"predict {ONE} taken/mine.png --store elsewhere",
    f"predict {ONE} taken/mine.png --batch 1e999",
    f"predict {ONE} taken/mine.png --stream",
    "predict x y.png --stream",
    f"predict {ONE} taken/mine.png --mean-latency 5ms",
    f"predict {ONE}",
    f"benchmark {ONE} --figure speed.txt",
    f"benchmark {ONE} --figure no/speed.svg",
    f"benchmark {ONE} --policy gone.json",
    f"benchmark {ONE} --seconds 1e999",
    "benchmark runs",
    "benchmark nothing",
    "status --trials --strategy jiont",
    "status --seed 7",
    "status --sort seed",
    "status --trials --watch",
    "show xyz",
    "show xyz --study s.yaml",
    "compare joint two-stag",
    "compare no nothing",
    "compare joint two-stage packed",
    "show joint packed",
    *(f"compare {name} {STATS}" for name in (*TABLES, "gone.csv") if name != "good.csv"),
    f"compare good.csv {STATS} --where h=1",
    f"compare good.csv {STATS} --where h",
    f"compare good.csv {STATS} --by h",
    f"compare good.csv {STATS} --better more",
    "claims runs --only joint-fastes",
    "claims runs --claims none.yaml",
    "claims runs --study x",
    "recommend nowhere",
    "recommend runs --goal latencyy",
    "recommend runs --min-accuracy 90",
    "recommend runs --max-macs 40%",
    "report nowhere",
    "report empty",
    "report runs --out taken",
    "report runs --format sgv",
    "report runs --format ,",
    "report runs --study other",
    "report --figures nowhere",
    "report --figures runs --only curvs",
    "report --figures runs --format gif",
    "report --figures runs --study other",
    "report --tables nowhere",
    "report --tables empty",
    "report --tables runs --only manin",
    "report --tables runs --show manin",
    "report --tables runs --show anova-hybrids",
    "report --tables runs --format word",
    "report --tables runs --format ,",
    "report --tables runs --study none",
    "report --tables runs --only main --out s.yaml",
    "report --numbers",
    "report --numbers t.txt",
    "report --numbers no/t.csv",
    "report --numbers .csv",
    "report --numbers taken.csv",
    "report nowhere --numbers t.csv",
    "store pack runs --out taken",
    "store pack runs --out p --strategy jont",
    "store index runs",
]


@pytest.fixture(scope="module")
def place(finished: tuple[Path, Answer], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished study, and with what commands cannot use or may not replace."""
    folder = tmp_path_factory.mktemp("mistakes") / "place"
    shutil.copytree(finished[0], folder)
    for name in ("taken", "taken.csv", "empty/nodes", "packed"):
        (folder / name).mkdir(parents=True)
    (folder / "empty" / "store.json").write_text('{"format": 1}')
    (folder / "packed" / "trials.json").write_text("{}")
    files = {"all.yaml": "studies: [s.yaml, t.yaml]", "t.yaml": STUDY, "taken/mine.png": "no image"}
    for name, text in {**files, **TABLES, "bad.json": '{"format": 1}'}.items():
        (folder / name).write_text(text)
    limit = ("--risk", "0.05", "--out", folder / "p.json", "--anyway")
    assert call("calibrate", ONE, folder / "runs", *limit).code == 0
    return folder


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_one_line_and_nothing_is_written(
    words: str, place: Path, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("OFFRAMP_DATA", raising=False)
    before = sorted(place.rglob("*"))
    line = refusal(call(*shlex.split(words)))
    assert unhashed(line) == snapshot
    assert sorted(place.rglob("*")) == before
