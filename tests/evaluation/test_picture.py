import io
import itertools

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from PIL import Image

from t2t_vqem.evaluation import picture


def row(name, latency, bleu, **others):
    return {"name": name, "latency_p50_ms": latency, "bleu": bleu, "speed_up": 1.0, "model": "x", **others}


def test_a_picture_of_the_runs_that_have_figures():
    rows = [row("fast", 10.0, 25.0), row("AR greedy", 100.0, 30.0), {"name": "failed", "error": "no room"}]
    report = {"runs": rows, "reference": "AR greedy", "split": "val", "sentences": 9}
    image = Image.open(io.BytesIO(picture.quality_against_latency(report, "2 cores")))
    assert image.format == "PNG"
    assert image.size == (1200, 825)
    one = report | {"runs": rows[1:2]}
    assert Image.open(io.BytesIO(picture.quality_against_latency(one, "2 cores"))).size == image.size


def test_labels_keep_off_each_other():
    figure = Figure(figsize=(8, 5.5), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set(xlim=(0, 10), ylim=(0, 10))
    places = [(5.0, 5.0), (5.05, 5.02), (5.0, 5.1), (9.9, 9.9), (0.1, 0.1), (9.8, 9.8)]
    picture._label(axes, [(f"a run of some long name {i}", place) for i, place in enumerate(places)])
    canvas.draw()
    texts = [child for child in axes.get_children() if isinstance(child, Annotation)]
    boxes = [text.get_bbox_patch().get_window_extent() for text in texts]
    assert len(boxes) == len(places)
    for a, b in itertools.combinations(boxes, 2):
        assert picture._shared(a, b) < 0.1 * a.width * a.height
    for box in boxes:
        assert picture._shared(box, axes.bbox) > 0.95 * box.width * box.height
