r"""A problem of your own: dates from English to German.

    bin/datagen --usr_dir=examples --problem=dates_ende --data_dir=data --inspect=3
    bin/trainer --usr_dir=examples --problem=dates_ende --data_dir=data \
        --model=latent_nat --gin_file=soft_em.gin --gin_file=toy.gin --model_dir=runs/dates
"""

import random

from t2t_vqem import registry
from t2t_vqem.problems.translation import TranslationProblem

ENGLISH = "January February March April May June July August September October November December".split()
GERMAN = "Januar Februar März April Mai Juni Juli August September Oktober November Dezember".split()
YEARS = {"train": range(1800, 2000), "val": range(2000, 2010), "test": range(2010, 2020)}


@registry.problems.register("dates_ende")
class DatesEnDe(TranslationProblem):
    vocab_size = 100

    def samples(self, split):
        rng = random.Random(split)
        for _ in range(5000 if split == "train" else 200):
            day, month, year = rng.randint(1, 28), rng.randrange(len(GERMAN)), rng.choice(YEARS[split])
            yield f"{ENGLISH[month]} {day}, {year}", f"{day}. {GERMAN[month]} {year}"
