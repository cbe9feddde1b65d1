"""Whether the forecast of the next round keeps its word: rounds of replays, before and after.

    python -m bench.forecast INDEX_FOLDER LABELS.csv [--targets 25] [--strategy rarefind]

LABELS.csv has the columns image_id and label; targets, pools and opening images are drawn as in
`bench.ablation`, with one seed. Prints for groups of rounds the mean number of yes that came, what
the sum of calibrated chances over the grid and the forecast had said, how far off both were on
average, and how often the truth was inside the forecast's interval.
"""

import argparse
import csv
from pathlib import Path

import numpy as np

from app.engine.answers import Value
from app.engine.forecast import forecast_yes
from app.engine.index import open_index
from app.engine.remaining import calibrate
from app.engine.replay import replay
from bench.ablation import ROUNDS, SIZE, draw_tasks

GROUPS = ((3, 5), (6, 10), (11, 25))


def main() -> None:
    """Replay every target and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("index", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--targets", type=int, default=25)
    parser.add_argument("--strategy", default="rarefind")
    options = parser.parse_args()
    index = open_index(options.index)
    with options.labels.open(newline="") as file:
        known = {int(row["image_id"]): row["label"] for row in csv.DictReader(file)}
    labels = np.array([known[image_id] for image_id in index.image_ids.tolist()])
    rows: list[tuple[float, ...]] = []
    for task in draw_tasks(labels, 1, options.targets):
        played = replay(
            index,
            task.target_rows,
            opening_rows=task.opening_rows,
            strategy=options.strategy,
            rounds=ROUNDS,
            size=SIZE,
            seed=1,
            pool_rows=task.pool_rows,
        )
        for number in range(2, len(played)):  # rounds before; the first has no head
            judged, following = played[1:number], played[number].proposal
            if following.head is None:
                continue
            closed = played[number - 1].answers.rows
            scores = index.scores(following.head.weights, following.head.bias)
            shown = np.concatenate([one.proposal.scores for one in judged])
            values = np.concatenate([one.values for one in judged])
            calibration = calibrate(shown, values, scores[np.setdiff1d(task.pool_rows, closed)])
            ago = np.repeat(np.arange(len(judged), 0, -1), [len(one.values) for one in judged])
            told = forecast_yes(following.scores, shown_scores=shown, values=values, rounds_ago=ago)
            if told is not None:
                came = int((played[number].values == Value.YES).sum())
                summed = np.nan
                if calibration is not None:
                    summed = calibration.chances(following.scores).sum()
                inside = told.low <= came <= told.high
                rows.append((number + 1, came, summed, told.value, inside))
    table = np.array(rows)
    print("rounds    came  sum of chances  forecast  sum off by  forecast off by  inside")
    for first, last in GROUPS:
        chosen = table[(table[:, 0] >= first) & (table[:, 0] <= last)]
        came, summed, told, inside = chosen[:, 1:].T
        print(
            f"{first:2} to {last:2}  {came.mean():4.1f}  {np.nanmean(summed):14.1f}  "
            f"{told.mean():8.1f}  {np.nanmean(abs(summed - came)):10.1f}  "
            f"{abs(told - came).mean():15.1f}  {100 * inside.mean():4.0f} %"
        )


if __name__ == "__main__":
    main()
