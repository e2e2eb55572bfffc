"""Translates with a SavedModel where this package does not exist; a script that `saved_model` starts.

    python -P fresh_process.py EXPORT

Windows of lines come as JSON on stdin; their translations go out the same way, as the last line of stdout.
"""

import json
import sys


class _Absent:
    """Makes `t2t_vqem` unknown, even where it is installed."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] == "t2t_vqem":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def main() -> None:
    sys.meta_path.insert(0, _Absent())
    assert "t2t_vqem" not in sys.modules

    import tensorflow as tf
    import tensorflow_text  # noqa: F401 (its operations are part of the graph)

    translate = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
    windows = json.load(sys.stdin)
    outputs = [translate(text=tf.constant(window, tf.string))["translation"].numpy() for window in windows]
    print(json.dumps([[text.decode() for text in window] for window in outputs]))


if __name__ == "__main__":
    main()
